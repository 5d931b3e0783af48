//! The pieces of a report: one page, with everything in it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1,h2{line-height:1.2}img{image-rendering:pixelated;max-width:100%}table{border-collapse:collapse}\
    td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:middle}svg{max-width:100%;height:auto}\
    figure{margin:1rem 0}figcaption{color:#555}code{background:#f3f3f3;padding:0 .2rem}";

/// How a page begins; `</html>` ends it.
pub(crate) fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escape(title)
    )
}

/// A PNG inside the page, small ones enlarged.
pub(crate) fn img(bytes: &[u8], alt: &str) -> String {
    let encoded = BASE64_STANDARD.encode(bytes);
    format!("<img style=\"min-height:7rem\" alt=\"{}\" src=\"data:image/png;base64,{encoded}\">", escape(alt))
}

/// Text as a page has it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
