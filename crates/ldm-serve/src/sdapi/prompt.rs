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
        let inner = tag.find('>').map(|end| (&tag[1..end], &tag[end + 1..]));
        let found = inner.and_then(|(inner, after)| Some((inner.split_once(':')?, after)));
        let Some(((kind, arguments), after)) = found else {
            text.push('<');
            rest = &tag[1..];
            continue;
        };
        match kind {
            "lora" | "lyco" => {
                let lora = lora(arguments)?;
                if lora.weight != 0. {
                    loras.push(lora);
                }
            }
            "hypernet" => {
                return Err(WebUiError::invalid("prompt", "expected no hypernetworks, got <hypernet:…>"));
            }
            _ => {
                text.push('<');
                rest = &tag[1..];
                continue;
            }
        }
        rest = after;
    }
    text.push_str(rest);
    Ok((text, loras))
}

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
