//! What the ranks of a run do reduce_metrics. A run without others is a world of one, for which all of it is nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Error, Result};
use ldm_libtorch::{GradientReducer, GroupError, ProcessGroup, Reduce, Single};
use tch::{Kind, Tensor};

/// How often a rank looks whether rank 0 is done.
const LOOK: Duration = Duration::from_millis(20);

/// The ranks of a run, seen by one of them.
#[derive(Debug)]
pub struct Distributed {
    group: Arc<dyn ProcessGroup>,
    /// How often rank 0 has worked alone.
    alone: Cell<u64>,
}

impl Default for Distributed {
    fn default() -> Self {
        Self::new(Arc::new(Single))
    }
}

impl Distributed {
    /// The ranks of `group`.
    pub fn new(group: Arc<dyn ProcessGroup>) -> Self {
        Self { group, alone: Cell::new(0) }
    }

    /// Which of them this is, from 0.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// How many there are.
    pub fn world_size(&self) -> usize {
        self.group.world()
    }

    /// Whether this is rank 0, the one that writes.
    pub fn is_rank_zero(&self) -> bool {
        self.rank() == 0
    }

    /// Refuses ranks that were prompt_for different things; `text` is what this one was prompt_for.
    ///
    /// # Errors
    /// The same sentence on every rank, with the ranks that differ from rank 0.
    pub fn check_same_config(&self, path: &Path, text: &str) -> Result<()> {
        // FNV-1a, the same in every build.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let all = self.gather(hash as i64)?;
        let others: Vec<String> = all
            .iter()
            .enumerate()
            .filter(|(_, other)| **other != all[0])
            .map(|(rank, _)| rank.to_string())
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(Error::config(
            path,
            format!(
                "the ranks have different configs, start all with the same file and the same KEY=VALUE; other than rank 0: {}",
                others.join(", ")
            ),
        ))
    }

    /// Refuses a set that does not fill one step on all ranks.
    ///
    /// # Errors
    /// [`Error::Config`] with the arithmetic in it.
    pub fn check_batch(&self, path: &Path, images: usize, batch_size: usize) -> Result<()> {
        let (world, step) = (self.world_size(), self.world_size() * batch_size);
        if images >= step {
            return Ok(());
        }
        let needed = if world == 1 {
            String::new()
        } else {
            format!(" and {world} ranks of {batch_size} need {step}: lower it, or take fewer ranks")
        };
        Err(Error::config(
            path,
            format!("data.params.batch_size: the set has {images} images{needed}, got {batch_size}"),
        ))
    }

    /// Whether a flag is set on any rank; the same answer on all.
    ///
    /// # Errors
    /// When a rank has ended.
    pub fn any(&self, flag: bool) -> Result<bool> {
        if self.world_size() == 1 {
            return Ok(flag);
        }
        let value = Tensor::from_slice(&[i64::from(flag)]);
        self.group.all_reduce(&[value.shallow_clone()], Reduce::Max)?.wait()?;
        Ok(value.int64_value(&[0]) != 0)
    }

    /// Gives every rank the `tensors` of rank 0, in place.
    ///
    /// # Errors
    /// When a rank has ended.
    pub fn broadcast_weights(&self, tensors: &[Tensor]) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let works: std::result::Result<Vec<_>, GroupError> =
            tensors.iter().map(|tensor| self.group.broadcast(&tensor.detach(), 0)).collect();
        works?.into_iter().try_for_each(ldm_libtorch::CollectiveWork::wait)?;
        Ok(())
    }

    /// What averages the gradients of `params` over all ranks; nothing in a world of one.
    ///
    /// # Errors
    /// When a rank has ended.
    pub fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>> {
        Ok(self.group.reducer(params)?)
    }

    /// A line of the log over all ranks: their images a second are added, the largest memory is kept, and losses are
    /// ema_parameters. The names are the same on all ranks.
    ///
    /// # Errors
    /// When a rank has ended.
    pub fn reduce_metrics(&self, line: &mut BTreeMap<String, f64>) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let values: Vec<f64> = line.values().copied().collect();
        let (sums, largest) = (Tensor::from_slice(&values), Tensor::from_slice(&values));
        let first = self.group.all_reduce(&[sums.shallow_clone()], Reduce::Sum)?;
        self.group.all_reduce(&[largest.shallow_clone()], Reduce::Max)?.wait()?;
        first.wait()?;
        for (index, (name, value)) in line.iter_mut().enumerate() {
            let at = [index as i64];
            *value = match name.as_str() {
                "step" | "images" | "lr" => continue,
                "images_per_second" => sums.double_value(&at),
                "peak_memory" | "seconds" => largest.double_value(&at),
                _ => sums.double_value(&at) / self.world_size() as f64,
            };
        }
        Ok(())
    }

    /// Has rank 0 do `body`, for as long as it takes, while the others wait for its end; `None` for them.
    ///
    /// # Errors
    /// What `body` returned, on rank 0; on the others that it failed there, or that the rank has ended.
    pub fn rank_zero_only<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        if self.world_size() == 1 {
            return body().map(Some);
        }
        let name = format!("alone/{}", self.alone.replace(self.alone.get() + 1));
        if self.is_rank_zero() {
            let done = body();
            // Not before all have seen the end: with the last of rank 0 the counter goes too.
            let met = self.group.count(&name, 1).map_err(Error::from).and_then(|_| self.any(done.is_err()));
            let done = done?;
            return met.map(|_| Some(done));
        }
        while self.group.count(&name, 0)? == 0 {
            std::thread::sleep(LOOK);
        }
        if self.any(false)? {
            return Err(Error::invalid("rank 0 failed, and says why itself"));
        }
        Ok(None)
    }

    /// One number of each rank, on all ranks.
    fn gather(&self, value: i64) -> Result<Vec<i64>> {
        let all = Tensor::zeros([self.world_size() as i64], (Kind::Int64, tch::Device::Cpu));
        let _ = all.narrow(0, self.rank() as i64, 1).fill_(value);
        self.group.all_reduce(&[all.shallow_clone()], Reduce::Sum)?.wait()?;
        Ok(Vec::try_from(all).expect("a row of integers"))
    }
}
