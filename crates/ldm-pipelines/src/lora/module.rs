//! Names of tensors in LoRA files.

/// Roles of tensors in an update.
pub(super) mod role {
    pub(in super::super) const DOWN: &str = "down (A)";
    pub(in super::super) const UP: &str = "up (B)";
    pub(in super::super) const MID: &str = "mid";
    pub(in super::super) const ALPHA: &str = "alpha";
    pub(in super::super) const DORA_SCALE: &str = "dora_scale";
    pub(in super::super) const MAGNITUDE: &str = "lora_magnitude_vector";
}

/// Suffixes of names: kohya's, PEFT's, and three of older diffusers.
const LEAVES: [(&str, &str); 15] = [
    (".lora_down.weight", role::DOWN),
    (".lora_up.weight", role::UP),
    (".lora_mid.weight", role::MID),
    (".lora_A.weight", role::DOWN),
    (".lora_B.weight", role::UP),
    (".lora.down.weight", role::DOWN),
    (".lora.up.weight", role::UP),
    (".lora_linear_layer.down.weight", role::DOWN),
    (".lora_linear_layer.up.weight", role::UP),
    ("_lora.down.weight", role::DOWN),
    ("_lora.up.weight", role::UP),
    (".alpha", role::ALPHA),
    (".dora_scale", role::DORA_SCALE),
    (".lora_magnitude_vector", role::MAGNITUDE),
    (".lora_magnitude_vector.weight", role::MAGNITUDE),
];

/// Factors of LoHa and LoKr, as LyCORIS and PEFT name them.
const FACTORS: [&str; 13] = [
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
];

/// Substrings of names in other kinds of adapters, and the kind.
const OTHERS: [(&str, &str); 10] = [
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
pub(super) fn parse(name: &str) -> Option<(String, &'static str)> {
    if let Some((module, leaf)) = name.rsplit_once('.')
        && let Some(factor) = FACTORS.iter().find(|factor| **factor == leaf)
    {
        return Some((module.to_owned(), factor));
    }
    let (module, role) = LEAVES.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))?;
    // Older diffusers put adapters of attention below its processor.
    Some((module.replace(".processor", ""), role))
}
