//! Collective operations of a run's ranks; with one rank they do nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Error, Result};
use ldm_libtorch::{
    C10d, CollectiveWork, GradientReducer, GroupError, ProcessGroup, RankEnv, Reduce, Single,
};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

/// Interval at which a rank polls for rank 0.
const POLL: Duration = Duration::from_millis(20);

/// The process group of a run, as seen by one rank.
#[derive(Debug)]
pub struct Distributed {
    group: Arc<dyn ProcessGroup>,
    /// The number of calls of `rank_zero_only`.
    rank_zero_calls: Cell<u64>,
    /// The flags of the last `any_of_previous`.
    pending: RefCell<Option<(Tensor, CollectiveWork)>>,
}

impl Default for Distributed {
    fn default() -> Self {
        Self::new(Arc::new(Single))
    }
}

impl Distributed {
    /// The ranks of `group`.
    pub fn new(group: Arc<dyn ProcessGroup>) -> Self {
        Self { group, rank_zero_calls: Cell::new(0), pending: RefCell::new(None) }
    }

    /// Connects to the other ranks of `env`, for tensors on `device` and on the CPU. A rank without others connects to
    /// nothing, and needs no NCCL.
    ///
    /// # Errors
    /// As [`C10d::connect`].
    pub fn connect(env: &RankEnv, device: Device) -> Result<Self> {
        if env.world == 1 {
            return Ok(Self::default());
        }
        Ok(Self::new(Arc::new(C10d::connect(env, device, C10d::TIMEOUT)?)))
    }

    /// Ends the process group, after the last operation of every rank.
    ///
    /// # Errors
    /// [`Error::Ranks`] when another rank has ended.
    pub fn close(&self) -> Result<()> {
        drop(self.pending.take());
        Ok(self.group.close()?)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.group.world()
    }

    /// True on rank 0, the only one that writes files.
    pub fn is_rank_zero(&self) -> bool {
        self.rank() == 0
    }

    /// Checks that all ranks have the same config; `text` is this rank's.
    ///
    /// # Errors
    /// The same [`Error::Config`] on every rank, with the ranks that differ from rank 0; [`Error::Ranks`] when another
    /// rank has ended.
    pub fn check_same_config(&self, path: &Path, text: &str) -> Result<()> {
        let hash = Sha256::digest(text);
        let all = self.gather(i64::from_le_bytes(*hash.first_chunk().expect("32 bytes")))?;
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
                "expected the config of rank 0 on all ranks, got another one on rank {}; \
                 try the same file and the same KEY=VALUE",
                others.join(", ")
            ),
        ))
    }

    /// Checks that a dataset fills one micro-batch on all ranks.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has fewer images.
    pub fn check_batch(&self, images: usize, batch_size: usize) -> Result<()> {
        let (world, step) = (self.world_size(), self.world_size() * batch_size);
        if images >= step {
            return Ok(());
        }
        let got = if world == 1 { batch_size.to_string() } else { format!("{world} ranks of {batch_size}") };
        Err(Error::invalid(format!(
            "data.params.batch_size: expected at most the {images} images of the set in a step, got {got}"
        )))
    }

    /// Returns true on all ranks if `flag` is set on any of them.
    ///
    /// # Errors
    /// [`Error::Ranks`] when another rank has ended.
    pub fn any(&self, flag: bool) -> Result<bool> {
        self.any_of([flag]).map(|[flag]| flag)
    }

    /// [`Distributed::any`] of each of several flags, in one operation.
    ///
    /// # Errors
    /// As [`Distributed::any`].
    pub fn any_of<const N: usize>(&self, flags: [bool; N]) -> Result<[bool; N]> {
        if self.world_size() == 1 {
            return Ok(flags);
        }
        let (values, work) = self.start_any(flags)?;
        work.wait()?;
        Ok(read_flags(&values))
    }

    /// [`Distributed::any_of`] of the flags of the previous call, and starts that of these: no rank waits for another if
    /// they are less than a call apart. The first call returns none.
    ///
    /// # Errors
    /// As [`Distributed::any`].
    pub fn any_of_previous<const N: usize>(&self, flags: [bool; N]) -> Result<[bool; N]> {
        if self.world_size() == 1 {
            return Ok(flags);
        }
        let started = self.start_any(flags)?;
        let Some((values, work)) = self.pending.replace(Some(started)) else { return Ok([false; N]) };
        work.wait()?;
        Ok(read_flags(&values))
    }

    fn start_any<const N: usize>(&self, flags: [bool; N]) -> Result<(Tensor, CollectiveWork)> {
        let values = Tensor::from_slice(&flags.map(i64::from));
        let work = self.group.all_reduce(&[values.shallow_clone()], Reduce::Max)?;
        Ok((values, work))
    }

    /// Copies the `tensors` of rank 0 to every rank, in place.
    ///
    /// # Errors
    /// [`Error::Ranks`] when another rank has ended.
    pub fn broadcast_weights(&self, tensors: &[Tensor]) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let works: std::result::Result<Vec<_>, GroupError> =
            tensors.iter().map(|tensor| self.group.broadcast(&tensor.detach(), 0)).collect();
        works?.into_iter().try_for_each(CollectiveWork::wait)?;
        Ok(())
    }

    /// Makes the reducer that averages the gradients of `params` over all ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] when another rank has ended.
    pub fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>> {
        Ok(self.group.reducer(params)?)
    }

    /// Reduces a line of the log over all ranks: sums images per second, takes the maximum of memory and seconds, and
    /// averages losses. The names must be the same on all ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] when another rank has ended.
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

    /// Runs `body` on rank 0 while the other ranks wait, without a timeout, and return `None`.
    ///
    /// # Errors
    /// The error of `body` on rank 0; [`Error::Invalid`] on the others when it failed there, [`Error::Ranks`] when a
    /// rank has ended.
    pub fn rank_zero_only<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        if self.world_size() == 1 {
            return body().map(Some);
        }
        let call = self.rank_zero_calls.replace(self.rank_zero_calls.get() + 1);
        let name = format!("rank_zero/{call}");
        if self.is_rank_zero() {
            let result = body();
            // Returns only after all ranks have seen the counter, which lives in rank 0's process.
            let barrier =
                self.group.count(&name, 1).map_err(Error::from).and_then(|_| self.any(result.is_err()));
            let value = result?;
            return barrier.map(|_| Some(value));
        }
        while self.group.count(&name, 0)? == 0 {
            std::thread::sleep(POLL);
        }
        if self.any(false)? {
            return Err(Error::invalid("rank 0 failed; see its error message"));
        }
        Ok(None)
    }

    /// Gathers one number per rank on all ranks.
    fn gather(&self, value: i64) -> Result<Vec<i64>> {
        let all = Tensor::zeros([self.world_size() as i64], (Kind::Int64, Device::Cpu));
        let _ = all.narrow(0, self.rank() as i64, 1).fill_(value);
        self.group.all_reduce(&[all.shallow_clone()], Reduce::Sum)?.wait()?;
        Ok(Vec::try_from(all).expect("a list of i64"))
    }
}

fn read_flags<const N: usize>(values: &Tensor) -> [bool; N] {
    std::array::from_fn(|index| values.int64_value(&[index as i64]) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_without_others_connects_to_nothing() {
        let env = |world| RankEnv {
            rank: 0,
            world,
            local_rank: 0,
            host: c"name.invalid".into(),
            port: 1,
            launcher_serves: true,
            listen_fd: None,
        };
        // As of torchrun with one process on a GPU: no rendezvous, and no NCCL, which a build for the CPU lacks.
        let ranks = Distributed::connect(&env(1), Device::Cuda(0)).unwrap();
        assert_eq!((ranks.rank(), ranks.world_size()), (0, 1));
        let weight = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let reducer = ranks.reducer(&[weight.shallow_clone()]).unwrap();
        weight.sum(Kind::Float).backward();
        reducer.arm();
        reducer.finish().unwrap();
        assert_eq!(weight.grad(), Tensor::from_slice(&[1_f32, 1.]));
        reducer.clear();
        assert!(!weight.grad().defined());
        ranks.close().unwrap();
    }
}
