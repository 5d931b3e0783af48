//! CompVis' conditioners on embeddings of OpenAI's CLIP: one vector for a text or an image.

use ldm_core::{Conditioning, Error, Prompt, Result, upload};
use tch::Kind;
use tch::nn::Path;

use super::{normalize, prepare};
use crate::clip::openai::OpenAiClip;
use crate::clip::openai_config::{ClipImageConfig, ClipTextPooledConfig};
use crate::tokens::Tokens;
use crate::{Conditioner, Tokenizer, TokenizerKind};

/// CLIP's embedding of a text, `n_repeat` times. CompVis `encoders/modules.py:138` `FrozenCLIPTextEmbedder`.
#[derive(Debug)]
pub struct ClipTextPooled {
    clip: OpenAiClip,
    tokens: Tokens,
    n_repeat: i64,
    normalize: bool,
}

impl ClipTextPooled {
    /// The embedder with its weights at `vs / "model"`. Without a tokenizer it takes `prompt.tokens` alone.
    ///
    /// # Errors
    /// If a size is invalid, or the tokenizer is of another kind or has more tokens than the model.
    pub fn new(vs: &Path, config: &ClipTextPooledConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        let sizes = config.sizes()?;
        let kind = Some(TokenizerKind::Clip);
        let tokens = Tokens::new(kind, tokenizer, sizes.vocab_size, sizes.context_length)?;
        let clip = OpenAiClip::new(&(vs / "model"), &sizes);
        Ok(Self { clip, tokens, n_repeat: config.n_repeat, normalize: config.normalize })
    }
}

impl Conditioner for ClipTextPooled {
    /// # Shapes
    /// - `prompt.text`, `B` texts; or `prompt.tokens`: `[B, L]` integers whose end mark is the greatest
    /// - returns context `[B, n_repeat, P]`
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let tokens = upload(&self.tokens.read(prompt, train)?, self.clip.device());
        // Past the end mark there are zeros, as in clip.tokenize: the end mark is found as the greatest.
        let end = tokens.amax([1_i64].as_slice(), true);
        let tokens =
            &tokens * tokens.eq_tensor(&end).cumsum(1, Kind::Int64).le(1).logical_or(&tokens.ne_tensor(&end));
        let z = self.clip.encode_text(&tokens);
        let z = if self.normalize { normalize(&z) } else { z };
        let context = z.unsqueeze(1).repeat([1, self.n_repeat, 1]);
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.tokens.null_prompt(batch)
    }

    fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.tokens.cut(prompt)
    }
}

/// CLIP's embedding of an image of any size, as one vector of context. CompVis `encoders/modules.py:170`
/// `FrozenClipImageEmbedder`, which returns `[B, P]`, no form of context; here the vector is its only token.
#[derive(Debug)]
pub struct ClipImageEmbedder {
    clip: OpenAiClip,
    side: i64,
}

impl ClipImageEmbedder {
    /// The embedder with its weights at `vs / "model"`.
    ///
    /// # Errors
    /// If a size is invalid.
    pub fn new(vs: &Path, config: &ClipImageConfig) -> Result<Self> {
        let sizes = config.sizes()?;
        Ok(Self { clip: OpenAiClip::new(&(vs / "model"), &sizes), side: sizes.image_resolution })
    }
}

impl Conditioner for ClipImageEmbedder {
    /// # Shapes
    /// - `prompt.image`: `[B, 3, H, W]` in `[-1, 1]`
    /// - returns context `[B, 1, P]`
    fn condition(&self, prompt: &Prompt, _train: bool) -> Result<Conditioning> {
        let image = prompt.image.as_ref().ok_or(Error::MissingInput("image"))?;
        let size = image.size();
        if size.len() != 4 || size[1] != 3 || size[2] < 1 || size[3] < 1 {
            return Err(Error::Shape { what: "image".into(), expected: "[B, 3, H, W]".into(), got: size });
        }
        let image = upload(image, self.clip.device()).to_kind(Kind::Float);
        // kornia.geometry.resize with `align_corners=True`.
        let resized = image.upsample_bicubic2d([self.side; 2], true, None, None);
        let x = prepare(&resized, self.side, self.clip.device())?.to_kind(self.clip.kind());
        let context = self.clip.encode_image(&x).unsqueeze(1);
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    /// Embeddings of zeros, as CompVis' `scripts/knn2img.py:363`, have no image.
    fn null_prompt(&self, _batch: i64) -> Result<Prompt> {
        Err(Error::expected(
            "guidance and conditioning dropout",
            "none for a model of CLIP's image embeddings",
            "some",
        ))
    }
}
