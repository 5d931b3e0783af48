//! CompVis' `cond_stage_config`.

use ldm_core::{Error, Result};
use tch::nn;

use crate::{
    BertConfig, BertEmbedder, ClassConfig, ClassEmbedder, ClipImageConfig, ClipImageEmbedder, ClipTextConfig,
    ClipTextEmbedder, ClipTextPooled, ClipTextPooledConfig, Conditioner, HybridConditioner, HybridConfig,
    Identity, SpatialConfig, SpatialRescaler, Tokenizer, TokenizerKind, TransformerConfig,
    TransformerEmbedder, Unconditional,
};

/// Configuration of a conditioner: one of CompVis' two words, or `{target, params}` with its long or our short
/// names.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ConditionerConfig {
    /// `__is_unconditional__`: [`Unconditional`].
    #[default]
    Unconditional,
    /// `__is_first_stage__`: the first stage encodes the condition too, in the model that owns it.
    FirstStage,
    /// `class`: [`ClassEmbedder`].
    Class(ClassConfig),
    /// `bert`: [`BertEmbedder`].
    Bert(BertConfig),
    /// `transformer`: [`TransformerEmbedder`].
    Transformer(TransformerConfig),
    /// `clip_text`: [`ClipTextEmbedder`].
    ClipText(ClipTextConfig),
    /// `clip_text_pooled`: [`ClipTextPooled`].
    ClipTextPooled(ClipTextPooledConfig),
    /// `clip_image`: [`ClipImageEmbedder`].
    ClipImage(ClipImageConfig),
    /// `spatial`: [`SpatialRescaler`].
    Spatial(SpatialConfig),
    /// `identity`: [`Identity`].
    Identity,
    /// `hybrid`: [`HybridConditioner`].
    Hybrid(HybridConfig),
}

impl ConditionerConfig {
    /// Builds the conditioner with its weights at `vs`. A text conditioner takes text with a `tokenizer` of
    /// [`tokenizer_kind`](Self::tokenizer_kind), and `prompt.tokens` without; the others ignore it.
    ///
    /// # Errors
    /// If the config is invalid or [`FirstStage`](Self::FirstStage), or the tokenizer is of another kind.
    pub fn build(&self, vs: &nn::Path, tokenizer: Option<Tokenizer>) -> Result<Box<dyn Conditioner>> {
        Ok(match self {
            Self::Unconditional => Box::new(Unconditional),
            Self::Class(config) => Box::new(ClassEmbedder::new(vs, config)?),
            Self::Bert(config) => Box::new(BertEmbedder::new(vs, config, tokenizer)?),
            Self::Transformer(config) => Box::new(TransformerEmbedder::new(vs, config)?),
            Self::ClipText(config) => Box::new(ClipTextEmbedder::new(vs, config, tokenizer)?),
            Self::ClipTextPooled(config) => Box::new(ClipTextPooled::new(vs, config, tokenizer)?),
            Self::ClipImage(config) => Box::new(ClipImageEmbedder::new(vs, config)?),
            Self::Spatial(config) => Box::new(SpatialRescaler::new(vs, config)?),
            Self::Identity => Box::new(Identity::new(vs.device())),
            Self::Hybrid(config) => Box::new(HybridConditioner::new(vs, config, tokenizer)?),
            Self::FirstStage => {
                return Err(Error::invalid(
                    "cond_stage_config: expected a separate conditioner, got __is_first_stage__, which requires a whole model",
                ));
            }
        })
    }

    /// The tokenizer of the model, if it reads text.
    pub fn tokenizer_kind(&self) -> Option<TokenizerKind> {
        match self {
            Self::Bert(config) => config.use_tokenizer.then_some(TokenizerKind::Bert),
            Self::ClipText(_) | Self::ClipTextPooled(_) => Some(TokenizerKind::Clip),
            Self::Hybrid(config) => config.c_crossattn_config.tokenizer_kind(),
            _ => None,
        }
    }

    /// `D` of the context `[B, L, D]`; `None` without context, or if the caller decides it (`identity`).
    pub fn context_dim(&self) -> Option<i64> {
        match self {
            Self::Class(config) => Some(config.embed_dim),
            Self::Bert(config) => Some(config.n_embed),
            Self::Transformer(config) => Some(config.n_embed),
            Self::ClipText(config) => Some(config.hidden_size),
            Self::Hybrid(config) => config.c_crossattn_config.context_dim(),
            Self::ClipTextPooled(config) => config.sizes().ok().map(|sizes| sizes.embed_dim),
            Self::ClipImage(config) => config.sizes().ok().map(|sizes| sizes.embed_dim),
            Self::Unconditional | Self::FirstStage | Self::Spatial(_) | Self::Identity => None,
        }
    }

    /// `C'` of the concat `[B, C', h, w]`; `None` without concat, or if the caller decides it (`identity`, the first stage).
    pub fn concat_channels(&self) -> Option<i64> {
        match self {
            Self::Spatial(config) => Some(config.out_channels.unwrap_or(config.in_channels)),
            Self::Hybrid(config) => config.c_concat_config.concat_channels(),
            _ => None,
        }
    }

    /// Names in a checkpoint that are no weights of the conditioner, to be skipped on loading.
    pub fn ignored_names(&self) -> &'static [&'static str] {
        match self {
            // Of the whole CLIP and of its text model with projection, which have no effect on the hidden states.
            Self::ClipText(_) => &[
                "transformer.text_model.embeddings.position_ids",
                "transformer.text_projection",
                "transformer.logit_scale",
                "text_projection",
                "logit_scale",
            ],
            Self::ClipTextPooled(_) | Self::ClipImage(_) => &["model.logit_scale"],
            _ => &[],
        }
    }
}
