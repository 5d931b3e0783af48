//! CLIP's text model, the frozen conditioner of Stable Diffusion.

use ldm_core::nn::attention::causal_attention;
use ldm_core::nn::embedding;
use ldm_core::{Conditioning, Error, Prompt, Result, upload};
use tch::nn::{self, Init, LayerNorm, Path};
use tch::{Kind, Tensor};

use crate::clip::layer::{ClipLayer, LayerSizes, norm, of_norm};
use crate::text_prompt::chunk::{Chunk, Chunker};
use crate::text_prompt::learned::LearnedWords;
use crate::tokens::Tokens;
use crate::{
    ClipTextConfig, Conditioner, PromptSyntax, TextOptions, TextualInversion, Tokenizer, TokenizerKind,
};

/// CLIP's text model (Radford et al. 2021, §2.4): every token after the last norm, neither pooled nor projected.
///
/// Attention is causal and does not mask padding; the U-Net attends to padding too. The weights are frozen, as in
/// CompVis, unless a caller sets `requires_grad` of one. CompVis' Stable Diffusion `encoders/modules.py:137`
/// `FrozenCLIPEmbedder`, which is transformers' `CLIPTextModel`.
#[derive(Debug)]
pub struct ClipTextEmbedder {
    tokens: Tokens,
    words: LearnedWords,
    token_embedding: nn::Embedding,    //    [V, D]
    position_embedding: nn::Embedding, // [L, D]
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextEmbedder {
    /// The embedder with its weights at `vs / "transformer" / "text_model"`. Without a tokenizer it takes
    /// `prompt.tokens` alone.
    ///
    /// # Errors
    /// If a size is invalid, or the tokenizer is of another kind or has more tokens than the model.
    pub fn new(vs: &Path, config: &ClipTextConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        Self::within(&(vs / "transformer" / "text_model"), config, tokenizer)
    }

    /// [`ClipTextEmbedder::new`] with the weights directly at `vs`.
    pub(crate) fn within(vs: &Path, config: &ClipTextConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        config.check()?;
        let kind = Some(TokenizerKind::Clip);
        let tokens = Tokens::new(kind, tokenizer, config.vocab_size, config.max_length)?;
        let table = |name, count| {
            let init = Init::Randn { mean: 0., stdev: 0.02 };
            embedding(&(vs / "embeddings" / name), count, config.hidden_size, init)
        };
        let sizes = LayerSizes {
            width: config.hidden_size,
            inside: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
        };
        let layer = |index| ClipLayer::new(&(vs / "encoder" / "layers" / index), sizes);
        let embedder = Self {
            tokens,
            words: LearnedWords::new(config.vocab_size, config.max_length),
            token_embedding: table("token_embedding", config.vocab_size),
            position_embedding: table("position_embedding", config.max_position_embeddings),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_layer_norm: norm(&(vs / "final_layer_norm"), sizes),
        };
        for weight in embedder.parameters() {
            let _ = weight.set_requires_grad(false);
        }
        Ok(embedder)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let mut all = vec![&self.token_embedding.ws, &self.position_embedding.ws];
        all.extend(self.layers.iter().flat_map(ClipLayer::parameters));
        all.extend(of_norm(&self.final_layer_norm));
        all
    }

    /// Encodes `[B, L]` i64 on the device of the weights as `[B, L, D]`, without the last `skipped` layers.
    fn forward(&self, tokens: &Tensor, skipped: usize) -> Tensor {
        let length = tokens.size()[1];
        let positions = self.position_embedding.ws.narrow(0, 0, length); // [L, D]
        let x = self.embed(tokens) + positions; //                          [B, L, D]
        let layers = &self.layers[..self.layers.len() - skipped];
        layers.iter().fold(x, |x, layer| layer.forward(&x, causal_attention)).apply(&self.final_layer_norm)
    }

    /// Embeds `[B, L]` i64 as `[B, L, D]`; tokens past the vocabulary are learned words.
    fn embed(&self, tokens: &Tensor) -> Tensor {
        let Some(table) = self.words.table() else { return tokens.apply(&self.token_embedding) };
        let (count, table) =
            (self.token_embedding.ws.size()[0], table.to_kind(self.token_embedding.ws.kind()));
        let known = tokens.clamp_max(count - 1).apply(&self.token_embedding);
        let learned = Tensor::embedding(&table, &(tokens - count).clamp_min(0), -1, false, false);
        learned.where_self(&tokens.ge(count).unsqueeze(-1), &known)
    }
}

impl ClipTextEmbedder {
    /// The token at the end mark of each text, which attends to all of it: `[B, D]`. The end mark is the greatest token;
    /// openai/CLIP `model.py:354`.
    pub(crate) fn pooled(&self, prompt: &Prompt) -> Result<Tensor> {
        let tokens = upload(&self.tokens.read(prompt, false)?, self.token_embedding.ws.device());
        let context = self.forward(&tokens, 0); //                                             [B, L, D]
        let end = tokens.argmax(1, true).unsqueeze(2).expand([-1, -1, context.size()[2]], false);
        Ok(context.gather(1, &end, false).squeeze_dim(1))
    }
}

impl ClipTextEmbedder {
    /// The converter of texts to chunks.
    fn chunker(&self) -> Result<Chunker<'_>> {
        let tokenizer = self.tokens.tokenizer().ok_or_else(|| TokenizerKind::Clip.missing())?;
        Ok(Chunker { tokenizer, words: &self.words, length: self.tokens.max_length() as usize })
    }

    /// Encodes texts, each one or more chunks: `[B, chunks · L, D]`.
    fn encode(&self, texts: &[String], options: &TextOptions, skipped: usize) -> Result<Tensor> {
        let chunker = self.chunker()?;
        let of_each: Vec<Vec<Chunk>> =
            texts.iter().map(|text| chunker.chunks(text, options.syntax)).collect::<Result<_>>()?;
        let count = of_each.iter().map(Vec::len).max().unwrap_or(1).max(options.chunks);
        let empty = chunker.empty();
        let parts: Vec<Tensor> = (0..count)
            .map(|index| {
                let chunks: Vec<&Chunk> =
                    of_each.iter().map(|chunks| chunks.get(index).unwrap_or(&empty)).collect();
                self.encode_chunks(&chunks, skipped)
            })
            .collect();
        Ok(Tensor::cat(&parts, 1))
    }

    /// Encodes tokens, which are the first chunk: `[B, (chunks - 1) · max_length + L, D]`.
    fn encode_tokens(&self, prompt: &Prompt, options: &TextOptions, skipped: usize) -> Result<Tensor> {
        let tokens = upload(&self.tokens.read(prompt, false)?, self.token_embedding.ws.device());
        let first = self.forward(&tokens, skipped);
        let missing = options.chunks.saturating_sub(1);
        if missing == 0 {
            return Ok(first);
        }
        let empty = self.chunker()?.empty();
        let empty = self.encode_chunks(&vec![&empty; tokens.size()[0] as usize], skipped);
        let parts: Vec<&Tensor> =
            std::iter::once(&first).chain(std::iter::repeat_n(&empty, missing)).collect();
        Ok(Tensor::cat(&parts, 1))
    }

    /// Encodes a chunk of each text as `[B, L, D]`: weights multiply the tokens, then the mean of each sample is restored.
    /// AUTOMATIC1111 `sd_emphasis.py` `EmphasisOriginal`, whose mean is that of a batch of one.
    fn encode_chunks(&self, chunks: &[&Chunk], skipped: usize) -> Tensor {
        let place = &self.token_embedding.ws;
        let size = [chunks.len() as i64, self.tokens.max_length()];
        let ids: Vec<i64> = chunks.iter().flat_map(|chunk| chunk.ids.iter().copied()).collect();
        let z = self.forward(&Tensor::from_slice(&ids).view(size).to_device(place.device()), skipped);
        let weights: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.weights.iter().copied()).collect();
        if weights.iter().all(|weight| *weight == 1.) {
            return z;
        }
        let weights = Tensor::from_slice(&weights).view(size).to_device(place.device()).unsqueeze(-1);
        let (kind, z) = (z.kind(), z.to_kind(Kind::Float)); //                [B, L, D]
        let mean = |x: &Tensor| x.mean_dim([1_i64, 2].as_slice(), true, Kind::Float); // [B, 1, 1]
        let weighted = &z * weights;
        (&weighted * (mean(&z) / mean(&weighted))).to_kind(kind)
    }

    /// The number of layers left out.
    fn skipped(&self, options: &TextOptions) -> Result<usize> {
        let layers = self.layers.len();
        let skip = options.clip_skip as usize;
        if (1..=layers).contains(&skip) {
            return Ok(skip - 1);
        }
        Err(Error::expected("clip skip", format!("1 to {layers}, the layers of the text model"), skip))
    }
}

impl Conditioner for ClipTextEmbedder {
    /// # Shapes
    /// - `prompt.text`, `B` texts; or `prompt.tokens`: `[B, L]` integers in `0..vocab_size`, `L` at most `max_length`
    /// - returns context `[B, L, D]`, with `L = max_length` for a text
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let context = if let (None, Some(texts)) = (&prompt.tokens, &prompt.text) {
            self.encode(texts, &TextOptions::default(), 0)?
        } else {
            let tokens = upload(&self.tokens.read(prompt, train)?, self.token_embedding.ws.device());
            self.forward(&tokens, 0)
        };
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    /// # Shapes
    /// - returns context `[B, chunks · L, D]`; tokens are one chunk
    fn condition_text(&self, prompt: &Prompt, options: &TextOptions) -> Result<Conditioning> {
        let skipped = self.skipped(options)?;
        let context = if let (None, Some(texts)) = (&prompt.tokens, &prompt.text) {
            self.encode(texts, options, skipped)?
        } else {
            self.encode_tokens(prompt, options, skipped)?
        };
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn chunks(&self, prompt: &Prompt, options: &TextOptions) -> Result<usize> {
        let (PromptSyntax::Weights, Some(texts), None) = (options.syntax, &prompt.text, &prompt.tokens)
        else {
            return Ok(1);
        };
        let chunker = self.chunker()?;
        let counts = texts.iter().map(|text| Ok(chunker.chunks(text, options.syntax)?.len()));
        Ok(counts.collect::<Result<Vec<usize>>>()?.into_iter().max().unwrap_or(1))
    }

    fn add_embedding(&mut self, embedding: TextualInversion) -> Result<()> {
        let width = self.token_embedding.ws.size()[1];
        let vectors = embedding.vectors.to_device(self.token_embedding.ws.device());
        self.words.add(TextualInversion { vectors, ..embedding }, width)
    }

    fn learned_words(&self) -> Vec<String> {
        self.words.tokens()
    }

    fn token_vectors(&self, text: &str) -> Result<Tensor> {
        let tokens = self.chunker()?.tokenizer.tokens(text)?;
        let ids: Vec<i64> = tokens.into_iter().map(|(id, _)| id).collect();
        let table = &self.token_embedding.ws;
        Ok(table.index_select(0, &Tensor::from_slice(&ids).to_device(table.device())).detach())
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.tokens.null_prompt(batch)
    }

    fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        let (Ok(chunker), Some(texts), None) = (self.chunker(), &prompt.text, &prompt.tokens) else {
            return Vec::new();
        };
        // A text that cannot be encoded is an error where it is used.
        texts.iter().map(|text| chunker.cut(text).unwrap_or_default()).collect()
    }
}
