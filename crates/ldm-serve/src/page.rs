//! The page: plain HTML, CSS and modules, inside the program.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::server::App;

/// The files with their paths and types.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("../web/index.html")),
    ("/app.css", "text/css; charset=utf-8", include_str!("../web/app.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../web/app.js")),
];

/// The routes of the page.
pub(crate) fn routes() -> Router<Arc<App>> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(async move || file(kind, text)))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    // Always asked for: a new version of the program has new files under the same names.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}
