//! The denoising U-Net.

use ldm_core::nn::{GroupNorm, conv2d, embedding, silu, zero_conv2d};
use ldm_core::{Conditioning, Error, Result, Tile};
use ldm_libtorch::{is_channels_last, to_channels_last};
use tch::nn::{Conv2D, Embedding, Init, Path};
use tch::{Kind, Tensor};

use crate::block::{Block, ForwardContext, LayerPlan};
use crate::config::UNetConfig;
use crate::cross_attention::KeyValue;
use crate::plan::Plan;
use crate::resblock::EPS;
use crate::time::{TimeEmbedding, time_channels};

/// ε_θ(x_t, t, c): the network that predicts what is noise in a latent (Rombach et al. 2022, §3.2–3.3).
///
/// Parameters bear CompVis' names under the given path, and start as there: a new network answers zero.
/// Convolution weights laid out channels_last ([`ldm_libtorch::channels_last`]) make the whole network run so.
/// Weights of any floating dtype work; sines, group norms and softmaxes are taken in f32 at least.
///
/// CompVis `openaimodel.py:411` `UNetModel`.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    time: TimeEmbedding,
    label: Option<Embedding>,
    input: Vec<Block>,
    middle: Block,
    output: Vec<Block>,
    out: Head,
    ids: Option<Head>,
    first_weight: Tensor,
    /// Width of the context where a transformer layer cannot do without one.
    needs_context: Option<i64>,
}

/// A conditioning with everything computed that does not change from step to step: see [`UNet::prepare`].
#[derive(Debug)]
pub struct ConditioningCache {
    concat: Option<Tensor>,
    label: Option<Tensor>,
    context: Option<Vec<KeyValue>>,
}

impl ConditioningCache {
    /// What is said of a part of the sample: of the concat that part, of all else the whole.
    #[must_use]
    pub fn part(&self, tile: Tile) -> Self {
        Self { concat: self.concat.as_ref().map(|concat| tile.of(concat)), ..self.shallow_clone() }
    }

    fn shallow_clone(&self) -> Self {
        let clone = |slot: &Option<Tensor>| slot.as_ref().map(Tensor::shallow_clone);
        let context = self.context.as_ref().map(|pairs| pairs.iter().map(KeyValue::shallow_clone).collect());
        Self { concat: clone(&self.concat), label: clone(&self.label), context }
    }
}

/// A norm, perhaps an activation, and a convolution.
#[derive(Debug)]
struct Head {
    norm: GroupNorm,
    conv: Conv2D,
    silu: bool,
}

impl Head {
    fn forward(&self, x: &Tensor) -> Tensor {
        let h = x.apply(&self.norm);
        if self.silu { silu(h).apply(&self.conv) } else { h.apply(&self.conv) }
    }
}

impl UNet {
    /// Makes the network's parameters under `vs`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the config's values do not go together.
    pub fn new(vs: &Path, config: &UNetConfig) -> Result<Self> {
        let plan = Plan::new(config)?;
        let channels = plan.model_channels;
        let use_checkpoint = config.use_checkpoint;
        let label = plan.classes.map(|count| {
            let init = Init::Randn { mean: 0., stdev: 1. }; // torch.nn.Embedding's own
            embedding(&(vs / "label_emb"), count, time_channels(channels), init)
        });
        let ids = match config.n_embed {
            None => None,
            Some(count) => {
                let vs = vs / "id_predictor";
                let norm = GroupNorm::new(&(&vs / 0), channels, EPS)?;
                Some(Head { norm, conv: conv2d(&(&vs / 1), channels, count, 1, 1, 0), silu: false })
            }
        };
        let out = vs / "out";
        let input_blocks = vs / "input_blocks";
        Ok(Self {
            time: TimeEmbedding::new(vs, channels),
            label,
            input: Block::all(&input_blocks, &plan.input, use_checkpoint)?,
            middle: Block::new(&(vs / "middle_block"), &plan.middle, use_checkpoint)?,
            output: Block::all(&(vs / "output_blocks"), &plan.output, use_checkpoint)?,
            out: Head {
                norm: GroupNorm::new(&(&out / 0), channels, EPS)?,
                conv: zero_conv2d(&(&out / 2), channels, config.out_channels, 3),
                silu: true,
            },
            ids,
            first_weight: (&input_blocks / 0 / 0).get("weight").expect("the first block is a convolution"),
            needs_context: needs_context(&plan),
            config: config.clone(),
        })
    }

    /// The config it was made from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// By how much the deepest level is smaller than the latent: sizes must be divisible by it.
    pub fn factor(&self) -> i64 {
        self.config.backbone().factor()
    }

    /// Whether the network can take a latent of `[height, width]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when [`UNet::factor`] does not divide both; it names the nearest sizes.
    pub fn check_size(&self, size: [i64; 2]) -> Result<()> {
        let factor = self.factor();
        if size.iter().all(|side| *side > 0 && side % factor == 0) {
            return Ok(());
        }
        let [height, width] = size;
        let down = size.map(|side| (side / factor).max(1) * factor);
        let up = size.map(|side| (side + factor - 1).div_euclid(factor).max(1) * factor);
        let nearest = if down == up {
            format!("{}x{}", down[0], down[1])
        } else {
            format!("{}x{} and {}x{}", down[0], down[1], up[0], up[1])
        };
        Err(Error::invalid(format!(
            "height and width of a latent must be divisible by {factor}, got {height}x{width}, nearest: {nearest}"
        )))
    }

    /// Predicts from noisy latents.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`, with `cond.concat` `in_channels` wide; h and w as [`UNet::check_size`] wants them
    /// - `t`: `[B]`, integer or fractional, in steps of training
    /// - returns `[B, out_channels, h, w]`, dtype of `x`; with `n_embed`, `[B, n_embed, h, w]`
    ///
    /// # Panics
    /// When `cond` fills other slots than the network reads, or a shape does not fit.
    pub fn forward(&self, x: &Tensor, t: &Tensor, cond: &Conditioning, train: bool) -> Tensor {
        self.forward_cached(x, t, &self.prepare(cond), train)
    }

    /// Computes once what a conditioning adds to every step: keys and values of its context in each transformer, the
    /// embedding of its label.
    ///
    /// It holds for the weights of the moment. Gradients flow through it.
    ///
    /// # Panics
    /// When `cond` fills other slots than the network reads: a label if and only if `num_classes`, no context without
    /// a transformer, and a context wherever one is as wide as no layer.
    pub fn prepare(&self, cond: &Conditioning) -> ConditioningCache {
        assert_eq!(
            cond.label.is_some(),
            self.label.is_some(),
            "a label is given if and only if num_classes is"
        );
        match (&cond.context, self.config.context_dim) {
            (Some(_), None) => panic!("a context is given, and the network has no transformer to read it"),
            (Some(context), Some(width)) => {
                assert_eq!(context.size().last(), Some(&width), "the context is as wide as context_dim");
            }
            (None, _) => assert_eq!(self.needs_context, None, "the network reads a context as wide as this"),
        }
        let label = cond.label.as_ref().zip(self.label.as_ref()).map(|(label, embedding)| {
            assert_eq!(label.dim(), 1, "one label a sample");
            label.apply(embedding) // [B, 4·model_channels]
        });
        let context = cond.context.as_ref().map(|context| {
            let context = context.to_kind(self.kind());
            self.blocks().flat_map(Block::transformers).flat_map(|layer| layer.project(&context)).collect()
        });
        ConditioningCache {
            concat: cond.concat.as_ref().map(|concat| concat.to_kind(self.kind())),
            label,
            context,
        }
    }

    /// [`UNet::forward`] with what [`UNet::prepare`] made of the conditioning.
    pub fn forward_cached(&self, x: &Tensor, t: &Tensor, cond: &ConditioningCache, train: bool) -> Tensor {
        let kind = x.kind();
        let mut h = x.to_kind(self.kind());
        if let Some(concat) = &cond.concat {
            h = Tensor::cat(&[&h, concat], 1);
        }
        assert_eq!(
            h.size()[1],
            self.config.in_channels,
            "channels of the latent and of the concat are in_channels"
        );
        if is_channels_last(&self.first_weight) {
            h = to_channels_last(&h);
        }
        let mut emb = self.time.forward(t); // [B, 4·model_channels]
        if let Some(label) = &cond.label {
            emb += label;
        }
        // Every `emb_layers` begins with this SiLU of the same embedding; it is taken once.
        let mut pass = ForwardContext {
            emb: emb.silu(),
            context: cond.context.as_ref().map(|pairs| pairs.iter()),
            train,
        };
        let mut skips = Vec::with_capacity(self.input.len());
        for block in &self.input {
            h = block.forward(&h, &mut pass);
            skips.push(h.shallow_clone());
        }
        h = self.middle.forward(&h, &mut pass);
        for block in &self.output {
            let skip = skips.pop().expect("as many blocks up as down");
            h = block.forward(&Tensor::cat(&[h, skip], 1), &mut pass);
        }
        self.ids.as_ref().unwrap_or(&self.out).forward(&h).to_kind(kind)
    }

    /// In the order in which a map passes them.
    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.input.iter().chain([&self.middle]).chain(&self.output)
    }

    /// Dtype of the weights.
    fn kind(&self) -> Kind {
        self.first_weight.kind()
    }
}

/// Without a context each second attention is to the map itself, for which the two must be of one width.
fn needs_context(plan: &Plan) -> Option<i64> {
    let blocks = plan.input.iter().chain([&plan.middle]).chain(&plan.output);
    blocks.flat_map(|block| &block.layers).find_map(|layer| match layer {
        LayerPlan::Transformer(plan) if plan.context != plan.channels => Some(plan.context),
        _ => None,
    })
}
