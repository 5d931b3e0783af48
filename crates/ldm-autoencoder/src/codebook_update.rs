//! What moves a codebook besides gradients.

use std::cell::RefCell;

use ldm_core::NoiseSource;
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::codebook::{Codebook, CodebookConfig, Quantized};

/// The codebook's own bookkeeping in training: entries as running averages of the latents they stand for
/// (`ema_decay`), and new places for entries that nothing falls to (`restart_after`).
///
/// [`see`](Self::see) takes note of each batch, [`step`](Self::step) moves the table once an optimizer step. All of it
/// stays on the device. Its state is saved with a run and is no part of a model.
#[derive(Debug)]
pub struct CodebookUpdate {
    average: Option<Average>,
    restart: Option<Restart>,
    seen: RefCell<Option<Seen>>,
}

/// van den Oord et al. 2017, appendix A.1.
#[derive(Debug)]
struct Average {
    decay: f64,
    /// `[K]`: running number of latents of each entry, N.
    cluster_size: Tensor,
    /// `[K, C]`: running sum of them, m.
    embed_avg: Tensor,
}

#[derive(Debug)]
struct Restart {
    after: i64,
    /// `[K]` i64: steps since an entry was last used.
    unused: Tensor,
}

/// What the batches of a step fell to.
#[derive(Debug)]
struct Seen {
    /// `[K]`
    counts: Tensor,
    /// `[K, C]`
    sums: Tensor,
    /// `[N, C]`: the latents of the last batch.
    rows: Tensor,
}

/// taming-transformers' names for the averages (`quantize.py:353` `EmbeddingEMA`), and ours.
const NAMES: [&str; 3] =
    ["quantize.embedding.cluster_size", "quantize.embedding.embed_avg", "quantize.unused_steps"];

/// Below this an entry has had no latent for so long that its average says nothing.
const FEW: f64 = 1e-5;

impl CodebookUpdate {
    /// The bookkeeping that `config` asks for, its state below `vs` (`quantize` in a CompVis file); none if it asks for
    /// none.
    pub fn new(vs: &Path, codebook: &Codebook, config: &CodebookConfig) -> Option<Self> {
        let (table, entries) = (codebook.embedding(), config.n_embed);
        let embedding = vs / "embedding";
        let average = config.ema_decay.map(|decay| Average {
            decay,
            // As if each entry had had one latent, itself: unused ones stay where they are.
            cluster_size: embedding.ones_no_train("cluster_size", &[entries]),
            embed_avg: embedding.add("embed_avg", table.detach().copy(), false),
        });
        let counter = || Tensor::zeros([entries], (Kind::Int64, table.device()));
        let restart = config
            .restart_after
            .map(|after| Restart { after, unused: vs.add("unused_steps", counter(), false) });
        let asked = average.is_some() || restart.is_some();
        asked.then(|| Self { average, restart, seen: RefCell::new(None) })
    }

    /// Whether the table is an average, and no optimizer may move it.
    pub fn averages(&self) -> bool {
        self.average.is_some()
    }

    /// Whether the tensor `name` of a first stage is this bookkeeping's.
    pub fn holds(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Takes note of a batch.
    pub fn see(&self, quantized: &Quantized) {
        let rows = quantized.rows.detach().to_kind(Kind::Float); //                           [N, C]
        let one_each = rows.ones_like().narrow(1, 0, 1).view([-1]);
        let entries = quantized.entries;
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, rows.device()));
        let counts = zeros(&[entries]).index_add(0, &quantized.nearest, &one_each);
        let sums = zeros(&[entries, rows.size()[1]]).index_add(0, &quantized.nearest, &rows);
        let mut seen = self.seen.borrow_mut();
        *seen = Some(match seen.take() {
            None => Seen { counts, sums, rows },
            Some(before) => Seen { counts: before.counts + counts, sums: before.sums + sums, rows },
        });
    }

    /// Moves the table by what was seen since the last step. `noise` is asked where entries may be restarted.
    pub fn step(&mut self, codebook: &Codebook, noise: &mut dyn NoiseSource) {
        let Some(seen) = self.seen.get_mut().take() else { return };
        tch::no_grad(|| {
            let mut table = codebook.embedding().shallow_clone();
            if let Some(average) = &self.average {
                average.step(&mut table, &seen);
            }
            if let Some(restart) = &self.restart {
                restart.step(&mut table, &seen, self.average.as_ref(), noise);
            }
        });
    }
}

impl Average {
    /// N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz, e = m / N.
    fn step(&self, table: &mut Tensor, seen: &Seen) {
        let weight = 1. - self.decay;
        let _ = self.cluster_size.shallow_clone().lerp_(&seen.counts, weight);
        let _ = self.embed_avg.shallow_clone().lerp_(&seen.sums, weight);
        let size = self.cluster_size.unsqueeze(1);
        // taming-transformers smooths N instead, which throws an entry without latents far away; here it stays.
        let moved = (&self.embed_avg / &size).where_self(&size.gt(FEW), table);
        table.copy_(&moved);
    }
}

impl Restart {
    /// Entries that have gone without a latent for `after` steps become latents of the batch, drawn at random: Łańcucki
    /// et al. 2020 and Dhariwal et al. 2020 (Jukebox), §3.1, do so.
    fn step(&self, table: &mut Tensor, seen: &Seen, average: Option<&Average>, noise: &mut dyn NoiseSource) {
        let mut unused = self.unused.shallow_clone();
        let waiting = (&unused + 1).where_self(&seen.counts.eq(0.), &unused.zeros_like());
        let dead = waiting.ge(self.after);
        unused.copy_(&waiting.where_self(&dead.logical_not(), &waiting.zeros_like()));
        let entries = table.size()[0];
        let drawn = noise.integers(seen.rows.size()[0], entries, &seen.rows);
        let instead = seen.rows.index_select(0, &drawn); //                                     [K, C]
        let dead_row = dead.unsqueeze(1);
        table.copy_(&instead.where_self(&dead_row, table));
        if let Some(Average { cluster_size, embed_avg, .. }) = average {
            cluster_size.shallow_clone().copy_(&cluster_size.ones_like().where_self(&dead, cluster_size));
            embed_avg.shallow_clone().copy_(&instead.where_self(&dead_row, embed_avg));
        }
    }
}
