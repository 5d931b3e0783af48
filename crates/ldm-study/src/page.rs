//! Self-contained HTML pages.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1,h2{line-height:1.2}img{image-rendering:pixelated;max-width:100%}table{border-collapse:collapse}\
    td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:middle}svg{max-width:100%;height:auto}\
    figure{margin:1rem 0}figcaption{color:#555}code{background:#f3f3f3;padding:0 .2rem}";

/// Returns a page with a title and a body.
pub(crate) fn page(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                (body)
            }
        }
    }
    .into_string()
}

/// Returns a PNG in the page, enlarged when it is small.
pub(crate) fn img(bytes: &[u8], alt: &str) -> Markup {
    let source = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes));
    html! { img style="min-height:7rem" alt=(alt) src=(source); }
}

/// Returns a figure with a caption.
pub(crate) fn figure(content: &Markup, caption: &str) -> Markup {
    html! { figure { (content) figcaption { (caption) } } }
}

/// Returns an SVG in the page.
pub(crate) fn svg(text: &str) -> Markup {
    PreEscaped(text.to_owned())
}
