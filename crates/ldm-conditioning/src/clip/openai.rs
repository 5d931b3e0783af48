//! CLIP under OpenAI's names, in which CompVis stores it.

use ldm_core::nn::attention::{attention, causal_attention, merge_heads, split_heads};
use ldm_core::nn::{Linear, embedding, linear, project, variable};
use tch::Tensor;
use tch::nn::{self, Init, LayerNorm, LayerNormConfig, Path};

use crate::clip::openai_config::OpenAiSizes;

/// Channels of a head of the vision transformer.
const HEAD: i64 = 64;

/// CLIP (Radford et al. 2021) with the parameters of openai/CLIP `model.py:243` `CLIP`. They are not initialized:
/// they are loaded.
#[derive(Debug)]
pub(crate) struct OpenAiClip {
    conv1: Tensor,            // [W, 3, p, p]
    class_embedding: Tensor,  // [W]
    visual_positions: Tensor, // [1 + patches, W]
    ln_pre: LayerNorm,
    visual_blocks: Vec<ResidualBlock>,
    ln_post: LayerNorm,
    visual_proj: Tensor,            // [W, P]
    token_embedding: nn::Embedding, // [V, D]
    positional_embedding: Tensor,   // [L, D]
    blocks: Vec<ResidualBlock>,
    ln_final: LayerNorm,
    text_projection: Tensor, // [D, P]
    patch: i64,
}

/// Attention with packed projections, and a feed-forward layer. openai/CLIP `model.py:171` `ResidualAttentionBlock`.
#[derive(Debug)]
struct ResidualBlock {
    ln_1: LayerNorm,
    in_proj_weight: Tensor, // [3·D, D]
    in_proj_bias: Tensor,   // [3·D]
    out_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    heads: i64,
}

impl OpenAiClip {
    /// CLIP with its weights at `vs`; none takes a gradient.
    pub(crate) fn new(vs: &Path, sizes: &OpenAiSizes) -> Self {
        let zeros = |vs: &Path, name: &str, shape: &[i64]| variable(vs, name, shape, Init::Const(0.));
        let visual = vs / "visual";
        let (width, patch) = (sizes.vision_width, sizes.vision_patch_size);
        let places = (sizes.image_resolution / patch).pow(2) + 1;
        let blocks = |vs: &Path, count: i64, width: i64, heads: i64| -> Vec<ResidualBlock> {
            let at = vs / "transformer" / "resblocks";
            (0..count).map(|index| ResidualBlock::new(&(&at / index), width, heads)).collect()
        };
        let text = sizes.transformer_width;
        let clip = Self {
            conv1: zeros(&(&visual / "conv1"), "weight", &[width, 3, patch, patch]),
            class_embedding: zeros(&visual, "class_embedding", &[width]),
            visual_positions: zeros(&visual, "positional_embedding", &[places, width]),
            ln_pre: norm(&(&visual / "ln_pre"), width),
            visual_blocks: blocks(&visual, sizes.vision_layers, width, width / HEAD),
            ln_post: norm(&(&visual / "ln_post"), width),
            visual_proj: zeros(&visual, "proj", &[width, sizes.embed_dim]),
            token_embedding: embedding(&(vs / "token_embedding"), sizes.vocab_size, text, Init::Const(0.)),
            positional_embedding: zeros(vs, "positional_embedding", &[sizes.context_length, text]),
            blocks: blocks(vs, sizes.transformer_layers, text, sizes.transformer_heads),
            ln_final: norm(&(vs / "ln_final"), text),
            text_projection: zeros(vs, "text_projection", &[text, sizes.embed_dim]),
            patch,
        };
        for parameter in clip.parameters() {
            let _ = parameter.set_requires_grad(false);
        }
        clip
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let mut all = vec![
            &self.conv1,
            &self.class_embedding,
            &self.visual_positions,
            &self.visual_proj,
            &self.token_embedding.ws,
            &self.positional_embedding,
            &self.text_projection,
        ];
        for norm in [&self.ln_pre, &self.ln_post, &self.ln_final] {
            all.extend(norm.ws.iter().chain(&norm.bs));
        }
        all.extend(self.visual_blocks.iter().chain(&self.blocks).flat_map(ResidualBlock::parameters));
        all
    }

    /// Encodes normalized images `[B, 3, S, S]` as `[B, P]`. `model.py:346` `encode_image`.
    pub(crate) fn encode_image(&self, x: &Tensor) -> Tensor {
        let patches = x.conv2d(&self.conv1, None::<Tensor>, [self.patch; 2], [0, 0], [1, 1], 1);
        let patches = patches.flatten(2, -1).transpose(1, 2); //                 [B, patches, W]
        let class = self.class_embedding.expand([x.size()[0], 1, -1], false); // [B, 1, W]
        let x = (Tensor::cat(&[class, patches], 1) + &self.visual_positions).apply(&self.ln_pre);
        let x = self.visual_blocks.iter().fold(x, |x, block| block.forward(&x, attention));
        x.select(1, 0).apply(&self.ln_post).matmul(&self.visual_proj)
    }

    /// Encodes tokens `[B, L]` i64, whose end mark is the greatest, as `[B, P]`. `model.py:349` `encode_text`.
    pub(crate) fn encode_text(&self, tokens: &Tensor) -> Tensor {
        let positions = self.positional_embedding.narrow(0, 0, tokens.size()[1]);
        let x = tokens.apply(&self.token_embedding) + positions; // [B, L, D]
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x, causal_attention));
        let x = x.apply(&self.ln_final);
        let end = tokens.argmax(1, true).unsqueeze(2).expand([-1, -1, x.size()[2]], false);
        x.gather(1, &end, false).squeeze_dim(1).matmul(&self.text_projection)
    }

    /// The device of the weights.
    pub(crate) fn device(&self) -> tch::Device {
        self.conv1.device()
    }

    /// The dtype of the weights.
    pub(crate) fn kind(&self) -> tch::Kind {
        self.conv1.kind()
    }
}

impl ResidualBlock {
    fn new(vs: &Path, width: i64, heads: i64) -> Self {
        let attn = vs / "attn";
        Self {
            ln_1: norm(&(vs / "ln_1"), width),
            in_proj_weight: variable(&attn, "in_proj_weight", &[3 * width, width], Init::Const(0.)),
            in_proj_bias: variable(&attn, "in_proj_bias", &[3 * width], Init::Const(0.)),
            out_proj: linear(&(&attn / "out_proj"), width, width, true),
            ln_2: norm(&(vs / "ln_2"), width),
            c_fc: linear(&(vs / "mlp" / "c_fc"), width, 4 * width, true),
            c_proj: linear(&(vs / "mlp" / "c_proj"), 4 * width, width, true),
            heads,
        }
    }

    fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let linear = [&self.out_proj, &self.c_fc, &self.c_proj];
        let linear = linear.into_iter().flat_map(Linear::parameters);
        let norms = [&self.ln_1, &self.ln_2].into_iter().flat_map(|norm| norm.ws.iter().chain(&norm.bs));
        linear.chain(norms).chain([&self.in_proj_weight, &self.in_proj_bias])
    }

    /// Maps `[B, L, D]` to the same shape.
    fn forward(&self, x: &Tensor, attention: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> Tensor {
        let packed = project(&x.apply(&self.ln_1), &self.in_proj_weight, Some(&self.in_proj_bias)); // [B, L, 3·D]
        let parts: Vec<Tensor> = packed.chunk(3, -1).iter().map(|part| self.split(part)).collect();
        let x = self.out_proj.plus(&merge_heads(&attention(&parts[0], &parts[1], &parts[2])), x);
        let inside = x.apply(&self.ln_2).apply(&self.c_fc);
        self.c_proj.plus(&(&inside * (&inside * 1.702).sigmoid()), &x)
    }

    fn split(&self, part: &Tensor) -> Tensor {
        split_heads(&part.contiguous(), self.heads)
    }
}

fn norm(vs: &Path, width: i64) -> LayerNorm {
    nn::layer_norm(vs, vec![width], LayerNormConfig::default())
}
