//! The reference's `cond_stage_config`.

use ldm_core::{Error, Result};
use tch::nn;

use crate::{
    BertConfig, BertEmbedder, ClassConfig, ClassEmbedder, ClipTextConfig, ClipTextEmbedder, Conditioner,
    Identity, SpatialConfig, SpatialRescaler, Tokenizer, TokenizerKind, TransformerConfig,
    TransformerEmbedder, Unconditional,
};

/// Which conditioner: one of the reference's two words, or `{target, params}` under its long names or our short.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ConditionerConfig {
    /// `__is_unconditional__`: [`Unconditional`].
    #[default]
    Unconditional,
    /// `__is_first_stage__`: the first stage encodes the condition too. The model that has the first stage does it.
    FirstStage,
    /// `class`: [`ClassEmbedder`].
    Class(ClassConfig),
    /// `bert`: [`BertEmbedder`].
    Bert(BertConfig),
    /// `transformer`: [`TransformerEmbedder`].
    Transformer(TransformerConfig),
    /// `clip_text`: [`ClipTextEmbedder`].
    ClipText(ClipTextConfig),
    /// `spatial`: [`SpatialRescaler`].
    Spatial(SpatialConfig),
    /// `identity`: [`Identity`].
    Identity,
}

impl ConditionerConfig {
    /// The conditioner, its weights at `vs`. One that reads text takes it as words with a `tokenizer` of
    /// [`tokenizer_kind`](Self::tokenizer_kind), and as `prompt.tokens` without; the others pass it over.
    ///
    /// # Errors
    /// When the config cannot be, the tokenizer is not the model's, or the config says
    /// [`FirstStage`](Self::FirstStage).
    pub fn build(&self, vs: &nn::Path, tokenizer: Option<Tokenizer>) -> Result<Box<dyn Conditioner>> {
        Ok(match self {
            Self::Unconditional => Box::new(Unconditional),
            Self::Class(config) => Box::new(ClassEmbedder::new(vs, config)?),
            Self::Bert(config) => Box::new(BertEmbedder::new(vs, config, tokenizer)?),
            Self::Transformer(config) => Box::new(TransformerEmbedder::new(vs, config)?),
            Self::ClipText(config) => Box::new(ClipTextEmbedder::new(vs, config, tokenizer)?),
            Self::Spatial(config) => Box::new(SpatialRescaler::new(vs, config)?),
            Self::Identity => Box::new(Identity::new(vs.device())),
            Self::FirstStage => {
                return Err(Error::invalid(
                    "conditioning by the first stage needs the model that has one, got __is_first_stage__ for a \
                     conditioner alone",
                ));
            }
        })
    }

    /// Which tokenizer makes the model's tokens of a text; none where the model reads no text.
    pub fn tokenizer_kind(&self) -> Option<TokenizerKind> {
        match self {
            Self::Bert(config) => config.use_tokenizer.then_some(TokenizerKind::Bert),
            Self::ClipText(_) => Some(TokenizerKind::Clip),
            _ => None,
        }
    }

    /// `D` of the context `[B, L, D]`; none where there is no context, or (`identity`) the caller's has any width.
    pub fn context_dim(&self) -> Option<i64> {
        match self {
            Self::Class(config) => Some(config.embed_dim),
            Self::Bert(config) => Some(config.n_embed),
            Self::Transformer(config) => Some(config.n_embed),
            Self::ClipText(config) => Some(config.hidden_size),
            Self::Unconditional | Self::FirstStage | Self::Spatial(_) | Self::Identity => None,
        }
    }

    /// `C'` of the concat `[B, C', h, w]`; none where there is none, or where the caller decides it (`identity`,
    /// the first stage).
    pub fn concat_channels(&self) -> Option<i64> {
        match self {
            Self::Spatial(config) => Some(config.out_channels.unwrap_or(config.in_channels)),
            _ => None,
        }
    }

    /// Names a checkpoint may hold at the conditioner's place that are no weights, to be passed over when loading.
    pub fn ignored_names(&self) -> &'static [&'static str] {
        match self {
            Self::ClipText(_) => &["transformer.text_model.embeddings.position_ids"],
            _ => &[],
        }
    }
}
