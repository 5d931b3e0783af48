//! The denoising U-Net.

use ldm_core::nn::{Added, GroupNorm, embedding};
use ldm_core::{Conditioning, Result, check_multiple};
use ldm_libtorch::{is_channels_last, to_channels_last};
use tch::nn::{Embedding, Init, Path};
use tch::{Kind, Tensor};

use crate::block::{ForwardContext, LayerPlan, MergedMap, UNetBlock};
use crate::conditioning_cache::ConditioningCache;
use crate::config::UNetConfig;
use crate::control_net::ControlResiduals;
use crate::conv_nd::{ConvNd, ConvSizes};
use crate::evaluation::{DeepFeatures, Evaluation};
use crate::plan::Plan;
use crate::resblock::EPS;
use crate::time::{TimeEmbedding, time_channels};

/// ε_θ(x_t, t, c): the network that predicts the noise in a latent (Rombach et al. 2022, §3.2–3.3).
///
/// Parameters have CompVis' names and initialization: the output of a new network is zero. With channels_last
/// convolution weights ([`ldm_libtorch::channels_last`]) the whole network runs in that format. Weights may have any
/// floating dtype; time embeddings, group norms and softmaxes are computed in f32 at least.
///
/// CompVis `openaimodel.py:411` `UNetModel`.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    time: TimeEmbedding,
    label: Option<Embedding>,
    input: Vec<UNetBlock>,
    middle: UNetBlock,
    output: Vec<UNetBlock>,
    out: OutputConv,
    ids: Option<OutputConv>,
    first_weight: Tensor,
    /// Every parameter.
    weights: Vec<Tensor>,
    /// Channels of the context, if some transformer requires one.
    needs_context: Option<i64>,
}

/// A norm, an optional SiLU, and a convolution.
#[derive(Debug)]
struct OutputConv {
    norm: GroupNorm,
    conv: ConvNd,
    silu: bool,
}

impl OutputConv {
    fn forward(&self, x: &Tensor) -> Tensor {
        if self.silu {
            self.conv.normed(&self.norm, x, Added::default())
        } else {
            x.apply(&self.norm).apply(&self.conv)
        }
    }
}

impl UNet {
    /// Builds the network with its parameters at `vs`.
    ///
    /// # Errors
    /// [`Error::Invalid`](ldm_core::Error::Invalid) if the config is inconsistent.
    pub fn new(vs: &Path, config: &UNetConfig) -> Result<Self> {
        let plan = Plan::new(config)?;
        let channels = plan.model_channels;
        let use_checkpoint = config.use_checkpoint;
        let label = plan.classes.map(|count| {
            let init = Init::Randn { mean: 0., stdev: 1. }; // torch.nn.Embedding's own
            embedding(&(vs / "label_emb"), count, time_channels(channels), init)
        });
        let conv = |channels_out, kernel| ConvSizes {
            dims: config.dims,
            channels_in: channels,
            channels_out,
            kernel,
        };
        let ids = match config.n_embed {
            None => None,
            Some(count) => {
                let vs = vs / "id_predictor";
                let norm = GroupNorm::new(&(&vs / 0), channels, EPS)?;
                Some(OutputConv { norm, conv: ConvNd::new(&(&vs / 1), conv(count, 1)), silu: false })
            }
        };
        let out = vs / "out";
        let input_blocks = vs / "input_blocks";
        Ok(Self {
            time: TimeEmbedding::new(vs, channels),
            label,
            input: UNetBlock::all(&input_blocks, &plan.input, use_checkpoint)?,
            middle: UNetBlock::new(&(vs / "middle_block"), &plan.middle, use_checkpoint)?,
            output: UNetBlock::all(&(vs / "output_blocks"), &plan.output, use_checkpoint)?,
            out: OutputConv {
                norm: GroupNorm::new(&(&out / 0), channels, EPS)?,
                conv: ConvNd::zero(&(&out / 2), conv(config.out_channels, 3)),
                silu: true,
            },
            ids,
            first_weight: (&input_blocks / 0 / 0).get("weight").expect("the first block is a convolution"),
            weights: plan.names().find(vs),
            needs_context: needs_context(&plan),
            config: config.clone(),
        })
    }

    /// Every parameter, in the order of [`Plan::parameters`].
    pub(crate) fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The downsampling factor of the deepest level; latent sizes must be divisible by it.
    pub fn factor(&self) -> i64 {
        self.config.backbone().factor()
    }

    /// Checks that the network can take a latent of `[height, width]`.
    ///
    /// # Errors
    /// [`Error::Invalid`](ldm_core::Error::Invalid) with the nearest sizes, if [`UNet::factor`] does not divide both.
    pub fn check_size(&self, size: [i64; 2]) -> Result<()> {
        check_multiple("latent", size, self.factor())
    }

    /// Predicts from noisy latents: the noise, or what the model was trained to predict.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`, `in_channels` together with `cond.concat`; h and w as checked by [`UNet::check_size`];
    ///   with `dims: 1` `[B, C, l]`, with `dims: 3` `[B, C, d, h, w]`, whose d is not downsampled
    /// - `t`: `[B]`, integer or fractional training timesteps
    /// - returns `[B, out_channels, h, w]`, dtype of `x`; with `n_embed`, `[B, n_embed, h, w]`
    ///
    /// # Panics
    /// If `cond` has other inputs than the network takes, or on a shape mismatch.
    pub fn forward(&self, x: &Tensor, t: &Tensor, cond: &Conditioning, train: bool) -> Tensor {
        self.forward_cached(x, t, &self.precompute(cond), train)
    }

    /// Precomputes everything that is constant over the steps: the keys and values of the context in each transformer, and
    /// the label embedding.
    ///
    /// The cache is valid until the weights change. Gradients flow through it.
    ///
    /// # Panics
    /// If `cond` has other inputs than the network takes: a label if and only if `num_classes`; no context without
    /// transformers; a context if its channels differ from those of a transformer.
    pub fn precompute(&self, cond: &Conditioning) -> ConditioningCache {
        assert_eq!(
            cond.label.is_some(),
            self.label.is_some(),
            "expected a label if and only if num_classes is set"
        );
        match (&cond.context, self.config.context_dim) {
            (Some(_), None) => panic!("expected no context, as the network has no transformer"),
            (Some(context), Some(width)) => {
                assert_eq!(context.size().last(), Some(&width), "expected a context of context_dim channels");
            }
            (None, _) => assert_eq!(self.needs_context, None, "expected a context of this many channels"),
        }
        let label = cond.label.as_ref().zip(self.label.as_ref()).map(|(label, embedding)| {
            assert_eq!(label.dim(), 1, "expected one label per sample");
            label.apply(embedding) // [B, 4·model_channels]
        });
        let context = cond.context.as_ref().map(|context| {
            let context = context.to_kind(self.kind());
            self.blocks().flat_map(|block| block.project(&context)).collect()
        });
        let concat = cond.concat.as_ref().map(|concat| concat.to_kind(self.kind()));
        ConditioningCache::new(concat, label, context)
    }

    /// [`UNet::forward`] with a conditioning from [`UNet::precompute`].
    pub fn forward_cached(&self, x: &Tensor, t: &Tensor, cond: &ConditioningCache, train: bool) -> Tensor {
        self.forward_controlled(x, t, cond, None, train)
    }

    /// [`UNet::forward_cached`] with the residuals of ControlNets, which are added to the skip connections and to the
    /// output of the middle block.
    ///
    /// lllyasviel/ControlNet `cldm/cldm.py:21` `ControlledUnetModel`.
    ///
    /// # Panics
    /// If the residuals have other shapes than those of this network.
    pub fn forward_controlled(
        &self,
        x: &Tensor,
        t: &Tensor,
        cond: &ConditioningCache,
        control: Option<&ControlResiduals>,
        train: bool,
    ) -> Tensor {
        self.run(x, t, cond, Evaluation { control, ..Evaluation::default() }, train)
    }

    /// Up blocks, and as many down blocks.
    pub fn depth(&self) -> usize {
        self.output.len()
    }

    /// The downsampling factor of the largest maps with transformers, if there are any: those whose tokens are merged.
    pub fn transformer_factor(&self) -> Option<i64> {
        let factors = (0..).map(|level| 1 << level).take_while(|factor| *factor < self.factor());
        let first = factors.clone().find(|factor| self.config.attention_resolutions.contains(factor));
        self.config.context_dim.is_some().then(|| first.unwrap_or(self.factor()))
    }

    /// [`UNet::forward_cached`] without training, with options.
    ///
    /// # Panics
    /// If residuals or features have other shapes than those of this network, or the depth of the features is out of range.
    pub fn evaluate(
        &self,
        x: &Tensor,
        t: &Tensor,
        cond: &ConditioningCache,
        options: Evaluation<'_>,
    ) -> Tensor {
        if let Some(DeepFeatures { depth, .. }) = options.deep {
            assert!((1..self.depth()).contains(&depth), "expected a depth of 1 to {}", self.depth() - 1);
        }
        self.run(x, t, cond, options, false)
    }

    fn run(
        &self,
        x: &Tensor,
        t: &Tensor,
        cond: &ConditioningCache,
        options: Evaluation<'_>,
        train: bool,
    ) -> Tensor {
        let kind = x.kind();
        let mut h = x.to_kind(self.kind());
        if let Some(concat) = &cond.concat {
            h = Tensor::cat(&[&h, concat], 1);
        }
        assert_eq!(
            h.size()[1],
            self.config.in_channels,
            "expected in_channels channels of latent and concat together"
        );
        if is_channels_last(&self.first_weight) {
            h = to_channels_last(&h);
        }
        let mut emb = self.time.forward(t); // [B, 4·model_channels]
        if let Some(label) = &cond.label {
            emb += label;
        }
        // Every `emb_layers` begins with this SiLU of the same embedding; it is computed once.
        let mut context = ForwardContext {
            emb: emb.silu(),
            keys_values: cond.context.as_ref().map(|pairs| pairs.iter()),
            merging: self.merging(&h, options.merged_tokens),
            train,
        };
        let control = options.control;
        let (depth, mut slot) = options.deep.map_or((0, None), |deep| (deep.depth, Some(deep.features)));
        let deep = slot.as_ref().and_then(|deep| deep.as_ref().map(Tensor::shallow_clone));
        // The up block that begins with the deep features.
        let first = self.output.len() - depth;
        let mut skips = Vec::with_capacity(self.input.len());
        for block in &self.input[..if deep.is_some() { depth } else { self.input.len() }] {
            h = block.forward(&h, &mut context);
            skips.push(h.shallow_clone());
        }
        if let Some(control) = control {
            assert_eq!(control.down.len(), self.input.len(), "expected one residual per skip connection");
            skips.iter_mut().zip(&control.down).for_each(|(skip, residual)| *skip = &*skip + residual);
        }
        if let Some(deep) = &deep {
            let left_out = self.input[depth..].iter().chain([&self.middle]).chain(&self.output[..first]);
            context.skip(left_out.map(UNetBlock::keys_values).sum());
            h = deep.shallow_clone();
        } else {
            h = self.middle.forward(&h, &mut context);
            if let Some(control) = control {
                h += &control.middle;
            }
        }
        for (index, block) in self.output.iter().enumerate().skip(if deep.is_some() { first } else { 0 }) {
            if index == first
                && let Some(slot) = &mut slot
            {
                **slot = Some(h.shallow_clone());
            }
            let skip = skips.pop().expect("as many up blocks as down blocks");
            h = block.forward(&Tensor::cat(&[h, skip], 1), &mut context);
        }
        self.ids.as_ref().unwrap_or(&self.out).forward(&h).to_kind(kind)
    }

    /// The merging of `share` of the tokens for a latent `x`, if there is something to merge.
    fn merging(&self, x: &Tensor, share: f64) -> Option<MergedMap> {
        let factor = self.transformer_factor().filter(|_| share > 0.)?;
        let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
        Some(MergedMap { size: [height / factor, width / factor], share })
    }

    /// All blocks in order of execution.
    fn blocks(&self) -> impl Iterator<Item = &UNetBlock> {
        self.input.iter().chain([&self.middle]).chain(&self.output)
    }

    /// Dtype of the weights.
    fn kind(&self) -> Kind {
        self.first_weight.kind()
    }
}

/// Without a context the second attention of a block is self-attention, which requires equal channels.
fn needs_context(plan: &Plan) -> Option<i64> {
    let blocks = plan.input.iter().chain([&plan.middle]).chain(&plan.output);
    blocks.flat_map(|block| &block.layers).find_map(|layer| match layer {
        LayerPlan::Transformer(plan) if plan.context != plan.channels => Some(plan.context),
        _ => None,
    })
}
