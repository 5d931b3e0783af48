//! Names of tensors in LoRA files.

/// The role of a tensor in an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AdapterTensor {
    Down,
    Up,
    Alpha,
}

/// Suffixes of names: kohya's, PEFT's, and three of older diffusers.
const LEAVES: [(&str, AdapterTensor); 11] = [
    (".lora_down.weight", AdapterTensor::Down),
    (".lora_up.weight", AdapterTensor::Up),
    (".lora_A.weight", AdapterTensor::Down),
    (".lora_B.weight", AdapterTensor::Up),
    (".lora.down.weight", AdapterTensor::Down),
    (".lora.up.weight", AdapterTensor::Up),
    (".lora_linear_layer.down.weight", AdapterTensor::Down),
    (".lora_linear_layer.up.weight", AdapterTensor::Up),
    ("_lora.down.weight", AdapterTensor::Down),
    ("_lora.up.weight", AdapterTensor::Up),
    (".alpha", AdapterTensor::Alpha),
];

/// Substrings of names in other kinds of adapters, and the kind.
const OTHERS: [(&str, &str); 15] = [
    (".hada_", "a LoHa"),
    (".lokr_", "a LoKr"),
    (".dora_scale", "a DoRA"),
    (".lora_magnitude_vector", "a DoRA"),
    (".lora_mid.", "a LoCon with a third factor"),
    (".oft_", "an OFT"),
    (".boft_", "a BOFT"),
    (".on_input", "an IA3"),
    (".diff", "full-rank weight differences"),
    (".lora_B.bias", "a LoRA with biases"),
    (".lora_embedding_", "a LoRA of an embedding"),
    ("lora_te2_", "a LoRA for Stable Diffusion XL"),
    ("text_encoder_2.", "a LoRA for Stable Diffusion XL"),
    ("lora_transformer_", "a LoRA for a diffusion transformer"),
    ("_blocks_0_img_", "a LoRA for a diffusion transformer"),
];

/// The unsupported kind of adapter that a tensor called `name` belongs to.
pub(super) fn other(name: &str) -> Option<&'static str> {
    if name.starts_with("transformer.") {
        return Some("a LoRA for a diffusion transformer");
    }
    OTHERS.iter().find(|(part, _)| name.contains(part)).map(|(_, kind)| *kind)
}

/// Parses the name of a tensor into the module's name in the file and the tensor's role.
pub(super) fn parse(name: &str) -> Option<(String, AdapterTensor)> {
    let (module, part) = LEAVES.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))?;
    // Older diffusers put adapters of attention below its processor.
    Some((module.replace(".processor", ""), part))
}
