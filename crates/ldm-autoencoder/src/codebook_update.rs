//! Codebook updates other than by gradients.

use std::cell::RefCell;

use ldm_core::NoiseSource;
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::codebook::{Codebook, CodebookConfig, Quantized};

/// Updates of a codebook in training: entries as the EMA of their latents (`ema_decay`), and restarts of dead entries
/// (`restart_after`).
///
/// [`see`](Self::see) records each batch, [`step`](Self::step) updates the table once per optimizer step, all on the
/// device. The state is saved with the training state, not with the model.
#[derive(Debug)]
pub struct CodebookUpdate {
    ema: Option<EntryEma>,
    restart: Option<DeadEntryRestart>,
    batch: RefCell<Option<BatchStatistics>>,
}

/// van den Oord et al. 2017, appendix A.1.
#[derive(Debug)]
struct EntryEma {
    decay: f64,
    /// `[K]`: EMA of the number of latents of each entry, N.
    cluster_size: Tensor,
    /// `[K, C]`: EMA of their sum, m.
    embed_avg: Tensor,
}

#[derive(Debug)]
struct DeadEntryRestart {
    after: i64,
    /// `[K]` i64: steps since an entry was last used.
    unused: Tensor,
}

/// Assignments of the latents of a step.
#[derive(Debug)]
struct BatchStatistics {
    /// `[K]`
    counts: Tensor,
    /// `[K, C]`
    sums: Tensor,
    /// `[N, C]`: the latents of the last batch.
    rows: Tensor,
}

/// Names of the state: taming-transformers' (`quantize.py:353` `EmbeddingEMA`) and ours.
const NAMES: [&str; 3] =
    ["quantize.embedding.cluster_size", "quantize.embedding.embed_avg", "quantize.unused_steps"];

/// Counts below this are too small to divide by: the entry has long been unused.
const MIN_CLUSTER_SIZE: f64 = 1e-5;

impl CodebookUpdate {
    /// The updates that `config` enables, with their state at `vs` (`quantize` in a CompVis file); `None` without any.
    pub fn new(vs: &Path, codebook: &Codebook, config: &CodebookConfig) -> Option<Self> {
        let (table, entries) = (codebook.embedding(), config.n_embed);
        let embedding = vs / "embedding";
        let ema = config.ema_decay.map(|decay| EntryEma {
            decay,
            // As if each entry had been assigned one latent, itself: unused entries do not move.
            cluster_size: embedding.ones_no_train("cluster_size", &[entries]),
            embed_avg: embedding.add("embed_avg", table.detach().copy(), false),
        });
        let counter = || Tensor::zeros([entries], (Kind::Int64, table.device()));
        let restart = config
            .restart_after
            .map(|after| DeadEntryRestart { after, unused: vs.add("unused_steps", counter(), false) });
        let enabled = ema.is_some() || restart.is_some();
        enabled.then(|| Self { ema, restart, batch: RefCell::new(None) })
    }

    /// True if the table is an EMA, which no optimizer may update.
    pub fn averages(&self) -> bool {
        self.ema.is_some()
    }

    /// True if the tensor `name` of a first stage belongs to the state of the updates.
    pub fn holds(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Records a batch.
    pub fn see(&self, quantized: &Quantized) {
        let rows = quantized.rows.detach().to_kind(Kind::Float); //                           [N, C]
        let one_each = rows.ones_like().narrow(1, 0, 1).view([-1]);
        let entries = quantized.entries;
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, rows.device()));
        let counts = zeros(&[entries]).index_add(0, &quantized.nearest, &one_each);
        let sums = zeros(&[entries, rows.size()[1]]).index_add(0, &quantized.nearest, &rows);
        let mut batch = self.batch.borrow_mut();
        *batch = Some(match batch.take() {
            None => BatchStatistics { counts, sums, rows },
            Some(before) => {
                BatchStatistics { counts: before.counts + counts, sums: before.sums + sums, rows }
            }
        });
    }

    /// Updates the table by the batches since the last step. `noise` is drawn only if entries may be restarted.
    pub fn step(&mut self, codebook: &Codebook, noise: &mut dyn NoiseSource) {
        let Some(batch) = self.batch.get_mut().take() else { return };
        tch::no_grad(|| {
            let mut table = codebook.embedding().shallow_clone();
            if let Some(ema) = &self.ema {
                ema.step(&mut table, &batch);
            }
            if let Some(restart) = &self.restart {
                restart.step(&mut table, &batch, self.ema.as_ref(), noise);
            }
        });
    }
}

impl EntryEma {
    /// N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz, e = m / N.
    fn step(&self, table: &mut Tensor, batch: &BatchStatistics) {
        let weight = 1. - self.decay;
        let _ = self.cluster_size.shallow_clone().lerp_(&batch.counts, weight);
        let _ = self.embed_avg.shallow_clone().lerp_(&batch.sums, weight);
        let size = self.cluster_size.unsqueeze(1);
        // taming-transformers smooths N instead, which moves an entry without latents far away; here it stays.
        let moved = (&self.embed_avg / &size).where_self(&size.gt(MIN_CLUSTER_SIZE), table);
        table.copy_(&moved);
    }
}

impl DeadEntryRestart {
    /// Replaces entries unused for `after` steps by random latents of the batch, as Łańcucki et al. 2020 and Dhariwal et
    /// al. 2020 (Jukebox), §3.1.
    fn step(
        &self,
        table: &mut Tensor,
        batch: &BatchStatistics,
        ema: Option<&EntryEma>,
        noise: &mut dyn NoiseSource,
    ) {
        let mut unused = self.unused.shallow_clone();
        let waiting = (&unused + 1).where_self(&batch.counts.eq(0.), &unused.zeros_like());
        let dead = waiting.ge(self.after);
        unused.copy_(&waiting.where_self(&dead.logical_not(), &waiting.zeros_like()));
        let entries = table.size()[0];
        let drawn = noise.integers(batch.rows.size()[0], entries, &batch.rows);
        let instead = batch.rows.index_select(0, &drawn); //                                     [K, C]
        let dead_row = dead.unsqueeze(1);
        table.copy_(&instead.where_self(&dead_row, table));
        if let Some(EntryEma { cluster_size, embed_avg, .. }) = ema {
            cluster_size.shallow_clone().copy_(&cluster_size.ones_like().where_self(&dead, cluster_size));
            embed_avg.shallow_clone().copy_(&instead.where_self(&dead_row, embed_avg));
        }
    }
}
