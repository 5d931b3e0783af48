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
    ("/icon.svg", "image/svg+xml", include_str!("../web/icon.svg")),
];

/// The modules, each at its own name.
const MODULES: [(&str, &str); 21] = [
    ("/actions.js", include_str!("../web/actions.js")),
    ("/api.js", include_str!("../web/api.js")),
    ("/app.js", include_str!("../web/app.js")),
    ("/boxes.js", include_str!("../web/boxes.js")),
    ("/chart.js", include_str!("../web/chart.js")),
    ("/dom.js", include_str!("../web/dom.js")),
    ("/fields.js", include_str!("../web/fields.js")),
    ("/form.js", include_str!("../web/form.js")),
    ("/gallery.js", include_str!("../web/gallery.js")),
    ("/image.js", include_str!("../web/image.js")),
    ("/jobs.js", include_str!("../web/jobs.js")),
    ("/loras.js", include_str!("../web/loras.js")),
    ("/map.js", include_str!("../web/map.js")),
    ("/painter.js", include_str!("../web/painter.js")),
    ("/png.js", include_str!("../web/png.js")),
    ("/queue.js", include_str!("../web/queue.js")),
    ("/raster.js", include_str!("../web/raster.js")),
    ("/runs.js", include_str!("../web/runs.js")),
    ("/size.js", include_str!("../web/size.js")),
    ("/viewer.js", include_str!("../web/viewer.js")),
    ("/weights.js", include_str!("../web/weights.js")),
];

/// The routes of the page.
pub(crate) fn routes() -> Router<Arc<App>> {
    let modules = MODULES.into_iter().map(|(path, text)| (path, "text/javascript; charset=utf-8", text));
    FILES.into_iter().chain(modules).fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(async move || file(kind, text)))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    // Always asked for: a new version of the program has new files under the same names.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let served: Vec<_> =
            FILES.iter().map(|file| file.0).chain(MODULES.iter().map(|file| file.0)).collect();
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("/{name}");
            // The page of the API has its own route.
            assert!(
                name == "index.html" || name.starts_with("docs.") || served.contains(&path.as_str()),
                "{name}"
            );
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for text in FILES.iter().map(|file| file.2).chain(MODULES.iter().map(|file| file.1)) {
            let without = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!without.contains("://") && !without.contains("innerHTML"), "{}", &text[..60]);
            assert!(!without.contains(" style=") && !without.contains("onclick="), "{}", &text[..60]);
        }
    }
}
