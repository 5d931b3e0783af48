//! Vector quantization.

use std::path::PathBuf;

use ldm_core::nn::variable;
use ldm_core::{NoiseSource, Result};
use ldm_libtorch::autocast;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::checks::{positive, refuse};
use crate::posterior::wide_kind;
use crate::remap::{Remap, UnknownIndex};

/// Configuration of a [`Codebook`].
#[derive(Debug, Clone, PartialEq)]
pub struct CodebookConfig {
    /// Entries, K.
    pub n_embed: i64,
    /// Channels of an entry, C.
    pub embed_dim: i64,
    /// Weight of one of the two loss terms; see `legacy`. 0.25 in CompVis.
    pub beta: f64,
    /// If true, `beta` weights the codebook term instead of the commitment term, as in every official model.
    pub legacy: bool,
    /// A `.npy` file of the indices in use; indices are renumbered to positions in it.
    pub remap: Option<PathBuf>,
    /// Replacement for an index not listed in `remap`.
    pub unknown_index: UnknownIndex,
    /// If true, indices have shape `[B, h, w]` instead of flat.
    pub sane_index_shape: bool,
    /// Decay of an EMA: in training, entries are the EMA of the latents assigned to them and take no gradient
    /// (van den Oord et al. 2017, appendix A.1). The loss then has no codebook term.
    pub ema_decay: Option<f64>,
    /// Training steps without use after which an entry is replaced by a latent of the batch.
    pub restart_after: Option<i64>,
}

impl CodebookConfig {
    /// CompVis' quantizer with `n_embed` entries of `embed_dim` channels.
    pub fn new(n_embed: i64, embed_dim: i64) -> Self {
        Self {
            n_embed,
            embed_dim,
            beta: 0.25,
            legacy: true,
            remap: None,
            unknown_index: UnknownIndex::Random,
            sane_index_shape: false,
            ema_decay: None,
            restart_after: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        positive("n_embed", self.n_embed)?;
        positive("embed_dim", self.embed_dim)?;
        if !(self.beta >= 0. && self.beta.is_finite()) {
            return refuse("beta", "a finite number of at least 0", self.beta);
        }
        if let Some(decay) = self.ema_decay
            && !(0. ..1.).contains(&decay)
        {
            return refuse("ema_decay", "at least 0 and below 1", decay);
        }
        if let Some(steps) = self.restart_after {
            positive("restart_after", steps)?;
        }
        Ok(())
    }
}

/// A learned table of latent vectors; each vector of a latent is replaced by the nearest entry.
///
/// van den Oord et al. 2017, §3; taming-transformers `quantize.py:213` `VectorQuantizer2`.
#[derive(Debug)]
pub struct Codebook {
    /// `[K, C]`
    embedding: Tensor,
    beta: f64,
    legacy: bool,
    /// Entries follow an EMA and learn nothing from the loss.
    ema: bool,
    remap: Option<Remap>,
    sane_index_shape: bool,
}

/// A quantized latent.
#[derive(Debug)]
pub struct Quantized {
    /// `[B, C, h, w]`, with a straight-through gradient to the latent.
    pub z: Tensor,
    /// Codebook and commitment terms, a scalar.
    pub loss: Tensor,
    /// i64: `[B, h, w]` with `sane_index_shape`, else `[B·h·w]`, and `[B·h·w, 1]` with `remap`, as CompVis.
    pub indices: Tensor,
    /// `[B·h·w, C]`: the latent before quantization, one row per position.
    pub rows: Tensor,
    /// i64 `[B·h·w]`: the nearest entry of each row, before any `remap`.
    pub nearest: Tensor,
    /// Entries of the codebook, K.
    pub entries: i64,
}

/// Codebook usage; scalars on the device, so that a training step need not synchronize.
#[derive(Debug)]
pub struct Usage {
    /// exp of the entropy of the index frequencies: the effective number of entries in use.
    pub perplexity: Tensor,
    /// Number of entries that occur.
    pub entries: Tensor,
}

/// The nearest entries of a latent.
struct Lookup {
    /// `[B·h·w, C]`
    rows: Tensor,
    /// `[B·h·w]`
    nearest: Tensor,
    /// The entries straight-through, `[B, C, h, w]`.
    straight: Tensor,
    /// The entries, with gradients to the table.
    entries: Tensor,
}

/// Distances in memory at once: 2²⁵ in f32 are 128 MiB.
const DISTANCES: i64 = 1 << 25;

impl Codebook {
    /// Builds the codebook at `vs` (`quantize` in a CompVis file), its entries sampled from U(±1/K).
    ///
    /// # Errors
    /// [`Error::Invalid`](ldm_core::Error::Invalid) for invalid sizes; `Io` and `Format` for the file of `remap`.
    pub fn new(vs: &Path, config: &CodebookConfig) -> Result<Self> {
        config.validate()?;
        let bound = 1. / config.n_embed as f64;
        let init = Init::Uniform { lo: -bound, up: bound };
        let remap = match &config.remap {
            Some(path) => Some(Remap::new(vs, path, config.n_embed, config.unknown_index)?),
            None => None,
        };
        Ok(Self {
            embedding: variable(&(vs / "embedding"), "weight", &[config.n_embed, config.embed_dim], init),
            beta: config.beta,
            legacy: config.legacy,
            ema: config.ema_decay.is_some(),
            remap,
            sane_index_shape: config.sane_index_shape,
        })
    }

    /// The table, `[K, C]`.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// Number of different indices: K, or fewer with `remap`.
    pub fn index_count(&self) -> i64 {
        self.remap.as_ref().map_or_else(|| self.embedding.size()[0], Remap::count)
    }

    /// Index of the entry nearest to each row, the first of ties.
    ///
    /// # Shapes
    /// - `rows`: `[N, C]`
    /// - returns `[N]` i64 in `0..K`
    pub fn nearest(&self, rows: &Tensor) -> Tensor {
        tch::no_grad(|| {
            // Distances are differences of large numbers: neither half precision nor, on CUDA, TF32 may round them.
            let _exact = autocast(rows.device(), Kind::Float);
            let kind = if rows.device().is_cuda() { Kind::Double } else { wide_kind(rows) };
            let (rows, table) = (rows.to_kind(kind), self.embedding.to_kind(kind));
            let table_square = table.square().sum_dim_intlist(1, false, kind); // [K]
            let across = table.transpose(0, 1); //                               [C, K]
            let nearest_of = |rows: &Tensor| {
                let square = rows.square().sum_dim_intlist(1, true, kind); //    [n, 1]
                // |z|² + |e|² − 2 z·e, in this order: it rounds and breaks ties as CompVis.
                (square + &table_square - rows.matmul(&across) * 2.).argmin(1, false)
            };
            let chunk = (DISTANCES / table.size()[0]).max(1);
            let parts: Vec<Tensor> = rows.split(chunk, 0).iter().map(nearest_of).collect();
            Tensor::cat(&parts, 0)
        })
    }

    /// Replaces `z` by the nearest entries, straight-through.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`; returns the same
    pub fn quantize(&self, z: &Tensor) -> Tensor {
        self.lookup(z).straight
    }

    /// Quantizes, with loss and indices. `noise` is drawn only for indices not listed in `remap`.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`
    pub fn forward(&self, z: &Tensor, noise: &mut dyn NoiseSource) -> Quantized {
        let (batch, _, height, width) = z.size4().expect("[B, C, h, w]");
        let Lookup { rows, nearest, straight, entries } = self.lookup(z);
        let commitment = (entries.detach() - z).square().mean(wide_kind(z));
        let commitment = if self.legacy { commitment } else { commitment * self.beta };
        let loss = if self.ema {
            commitment
        } else {
            let codebook = (&entries - z.detach()).square().mean(wide_kind(z));
            commitment + if self.legacy { codebook * self.beta } else { codebook }
        };
        let indices = match &self.remap {
            Some(remap) => remap.to_used(&nearest.view([batch, height * width]), noise).view([-1, 1]),
            None => nearest.shallow_clone(),
        };
        let indices = if self.sane_index_shape { indices.view([batch, height, width]) } else { indices };
        Quantized { z: straight, loss, indices, rows, nearest, entries: self.embedding.size()[0] }
    }

    /// Looks up the entries of `indices` as a latent.
    ///
    /// # Shapes
    /// - `indices`: `B·h·w` of them in any shape, as [`forward`](Self::forward) gives them
    /// - `size`: `[B, h, w]`
    /// - returns `[B, C, h, w]`
    ///
    /// taming-transformers `quantize.py:314` `get_codebook_entry`.
    pub fn get_codebook_entry(&self, indices: &Tensor, size: [i64; 3]) -> Tensor {
        let [batch, height, width] = size;
        let indices = match &self.remap {
            Some(remap) => remap.to_all(&indices.reshape([batch, height * width])),
            None => indices.shallow_clone(),
        };
        let entries = self.rows(&indices.reshape([-1]));
        entries.view([batch, height, width, -1]).permute([0, 3, 1, 2])
    }

    /// Perplexity and usage of `indices`, of any shape. CompVis `losses/vqperceptual.py:22`
    /// `measure_perplexity`.
    pub fn usage(&self, indices: &Tensor) -> Usage {
        let indices = indices.reshape([-1]);
        let count = indices.size()[0];
        let (zeros, ones) = ([self.index_count()], Tensor::ones([count], (Kind::Float, indices.device())));
        // Sums of ones in f32 are exact in any order; `bincount` would wait for the device.
        let counts = Tensor::zeros(zeros, (Kind::Float, indices.device())).index_add(0, &indices, &ones);
        let frequencies = counts.to_kind(Kind::Double) / count as f64;
        Usage {
            // x·log x is 0 at 0.
            perplexity: (-frequencies.xlogy(&frequencies).sum(Kind::Double)).exp(),
            entries: frequencies.gt(0.).sum(Kind::Double),
        }
    }

    fn lookup(&self, z: &Tensor) -> Lookup {
        let (batch, channels, height, width) = z.size4().expect("[B, C, h, w]");
        // A view of a channels_last latent.
        let rows = z.permute([0, 2, 3, 1]).reshape([-1, channels]);
        let nearest = self.nearest(&rows);
        let entries = self.rows(&nearest).view([batch, height, width, channels]).permute([0, 3, 1, 2]);
        let straight = z + (&entries - z).detach();
        Lookup { rows, nearest, straight, entries }
    }

    fn rows(&self, indices: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, indices, -1, false, false)
    }
}
