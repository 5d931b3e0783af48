//! Tags in prompts: `<lora:NAME:WEIGHT>`.

use super::body::WebUiError;
use crate::request::LoraRequest;

/// Takes the LoRAs out of a prompt.
///
/// # Errors
/// For hypernetworks, and weights that are not one number.
pub(crate) fn loras(prompt: &str) -> Result<(String, Vec<LoraRequest>), WebUiError> {
    let (mut text, mut loras) = (String::new(), Vec::<LoraRequest>::new());
    let mut rest = prompt;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let Some((kind, after)) = KINDS.iter().find_map(|kind| Some((*kind, tag[1..].strip_prefix(kind)?)))
        else {
            text.push('<');
            rest = &tag[1..];
            continue;
        };
        // Where there is no end, no later tag has one: looked for once, not once for every tag.
        let Some((arguments, after)) = after.split_once('>') else {
            rest = tag;
            break;
        };
        if kind == "hypernet:" {
            return Err(WebUiError::invalid("prompt", "expected no hypernetworks, got <hypernet:…>"));
        }
        let lora = lora(arguments)?;
        if lora.weight != 0. {
            loras.push(lora);
        }
        rest = after;
    }
    text.push_str(rest);
    Ok((text, loras))
}

/// The tags that are read; others are text.
const KINDS: [&str; 3] = ["lora:", "lyco:", "hypernet:"];

/// `NAME`, `NAME:WEIGHT`, or `NAME:WEIGHT:WEIGHT` of the text model and the U-Net, which must be the same.
fn lora(arguments: &str) -> Result<LoraRequest, WebUiError> {
    let mut parts = arguments.split(':').map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let wrong = || {
        let got: String = arguments.chars().take(100).collect();
        WebUiError::invalid("prompt", format!("expected <lora:NAME:WEIGHT>, got <lora:{got}>"))
    };
    let weights =
        parts.map(|part| part.parse::<f64>().map_err(|_| wrong())).collect::<Result<Vec<_>, _>>()?;
    match weights[..] {
        [] => Ok(LoraRequest { name, weight: 1. }),
        [weight] => Ok(LoraRequest { name, weight }),
        [text, unet] if text == unet => Ok(LoraRequest { name, weight: unet }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<` without an end: once for every one of them, this took 100 seconds a megabyte.
    #[test]
    fn tags_without_an_end_take_no_time() {
        let begun = std::time::Instant::now();
        for tag in ["<", "<lora:", "<a:b"] {
            let text = tag.repeat(300_000);
            let (found, tags) = loras(&text).unwrap();
            assert!(found == text && tags.is_empty());
            let ended = format!("{text}>");
            assert!(loras(&ended).is_ok_and(|(found, _)| found == ended) || tag == "<lora:");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn loras_are_taken_out_of_prompts() {
        let (text, found) = loras("a <lora:ink:0.5>cat, <3 <b:2> <lora:my style> <lora:off:0>< x").unwrap();
        assert_eq!(text, "a cat, <3 <b:2>  < x");
        let found: Vec<_> = found.iter().map(|lora| (lora.name.as_str(), lora.weight)).collect();
        assert_eq!(found, [("ink", 0.5), ("my style", 1.)]);
        assert_eq!(loras("<lora:a:1:1>").unwrap().1[0].weight, 1.);
        for wrong in ["<lora:a:x>", "<lora:a:1:0.5>", "<lora:a:te=1>", "<hypernet:a:1>"] {
            assert!(loras(wrong).is_err(), "{wrong}");
        }
    }
}
