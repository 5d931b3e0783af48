//! CLIP's vision transformer.

use ldm_core::nn::attention::attention;
use ldm_core::{Error, Result};
use tch::Tensor;
use tch::nn::{Init, LayerNorm, Path};

use crate::Activation;
use crate::checks::at_least_one;
use crate::clip::layer::{ClipLayer, LayerSizes, norm};

/// Sizes of CLIP's vision transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VisionSizes {
    pub(crate) width: i64,
    pub(crate) inside: i64,
    pub(crate) layers: i64,
    pub(crate) heads: i64,
    /// Side of the images, in pixels.
    pub(crate) side: i64,
    /// Side of a patch, in pixels.
    pub(crate) patch: i64,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
}

impl VisionSizes {
    pub(crate) fn check(&self) -> Result<()> {
        at_least_one(
            "vision_config",
            &[
                ("hidden_size", self.width),
                ("intermediate_size", self.inside),
                ("num_hidden_layers", self.layers),
                ("num_attention_heads", self.heads),
                ("image_size", self.side),
                ("patch_size", self.patch),
            ],
        )?;
        if self.width % self.heads != 0 || self.side < self.patch {
            return Err(Error::invalid(format!(
                "vision_config: expected num_attention_heads that divide hidden_size {}, got {}; expected an image_size of at \
                 least patch_size {}, got {}",
                self.width, self.heads, self.patch, self.side
            )));
        }
        Ok(())
    }
}

/// CLIP's vision transformer (Dosovitskiy et al. 2021, with a norm before the layers; Radford et al. 2021, §2.4). Its
/// parameters are not initialized: they are loaded. transformers `CLIPVisionModel`.
#[derive(Debug)]
pub(crate) struct ClipVision {
    /// The class token, `[D]`.
    class_embedding: Tensor,
    patch_embedding: Tensor,    // [D, 3, p, p]
    position_embedding: Tensor, // [1 + patches, D]
    pre: LayerNorm,
    layers: Vec<ClipLayer>,
    post: LayerNorm,
    patch: i64,
}

impl ClipVision {
    pub(crate) fn new(vs: &Path, sizes: VisionSizes) -> Self {
        let VisionSizes { width, patch, .. } = sizes;
        let places = (sizes.side / patch).pow(2) + 1;
        let of_layer = LayerSizes {
            width,
            inside: sizes.inside,
            heads: sizes.heads,
            eps: sizes.eps,
            activation: sizes.activation,
        };
        let zeros = |vs: &Path, name: &str, shape: &[i64]| vs.var(name, shape, Init::Const(0.));
        let embeddings = vs / "embeddings";
        Self {
            class_embedding: zeros(&embeddings, "class_embedding", &[width]),
            patch_embedding: zeros(&(&embeddings / "patch_embedding"), "weight", &[width, 3, patch, patch]),
            position_embedding: zeros(&(&embeddings / "position_embedding"), "weight", &[places, width]),
            pre: norm(&(vs / "pre_layrnorm"), of_layer), // spelled like this in every file
            layers: (0..sizes.layers)
                .map(|index| ClipLayer::new(&(vs / "encoder" / "layers" / index), of_layer))
                .collect(),
            post: norm(&(vs / "post_layernorm"), of_layer),
            patch,
        }
    }

    /// Encodes normalized images `[B, 3, S, S]` as `[B, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let patches = x.conv2d(&self.patch_embedding, None::<Tensor>, [self.patch; 2], [0, 0], [1, 1], 1);
        let patches = patches.flatten(2, -1).transpose(1, 2); //                 [B, patches, D]
        let class = self.class_embedding.expand([x.size()[0], 1, -1], false); // [B, 1, D]
        let x = (Tensor::cat(&[class, patches], 1) + &self.position_embedding).apply(&self.pre);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(&x, attention));
        x.select(1, 0).apply(&self.post)
    }
}
