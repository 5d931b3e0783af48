//! libtorch's own process groups: gloo on the CPU, NCCL on CUDA.

use std::ffi::CString;
use std::time::Duration;

use tch::{Device, TchError, Tensor};

use crate::env::RankEnv;
use crate::ffi::{RawGroup, RawReducer, RawWork};
use crate::process_group::{CollectiveWork, GradientReducer, GroupError, Overlap, ProcessGroup, Reduce};

/// Bytes of a gradient bucket, as in DistributedDataParallel.
const BUCKET_BYTES: usize = 25 << 20;

/// A process group of libtorch's c10d: gloo for tensors on the CPU, NCCL for tensors on GPUs.
#[derive(Debug)]
pub struct C10d {
    raw: RawGroup,
    rank: usize,
    world: usize,
    bucket_bytes: usize,
}

impl C10d {
    /// The time a rank waits for another in gloo before all of them fail: a dead rank is reported within a minute.
    pub const TIMEOUT: Duration = Duration::from_secs(45);

    /// The same in NCCL, longer, so that its watchdog does not end the process before gloo has reported the reason.
    pub const NCCL_TIMEOUT: Duration = Duration::from_mins(10);

    /// Connects to the other ranks, for tensors on `device` and on the CPU; `timeout` is that of gloo.
    ///
    /// # Errors
    /// When they do not connect within `timeout`, or when `device` is a GPU and libtorch has no CUDA.
    pub fn connect(env: &RankEnv, device: Device, timeout: Duration) -> Result<Self, GroupError> {
        let &RankEnv { rank, world, port, .. } = env;
        let nccl = if device.is_cuda() { Self::NCCL_TIMEOUT } else { Duration::ZERO };
        let serves = rank == 0 && !env.launcher_serves;
        let raw = RawGroup::connect(
            &env.host,
            port,
            serves.then_some(env.listen_fd),
            [rank, world],
            [timeout, nccl].map(|timeout| timeout.as_secs_f64()),
        );
        let raw = raw.map_err(|cause| {
            let what = format!(
                "rank {rank} of {world}: expected the other ranks at {}:{port} within {} s",
                env.host.to_string_lossy(),
                timeout.as_secs()
            );
            GroupError::because(&what, &cause)
        })?;
        Ok(Self { raw, rank, world, bucket_bytes: BUCKET_BYTES })
    }

    /// Sets the size of gradient buckets; the default is DistributedDataParallel's 25 MiB.
    #[must_use]
    pub fn with_bucket_bytes(self, bucket_bytes: usize) -> Self {
        Self { bucket_bytes, ..self }
    }

    fn what(&self) -> String {
        format!("rank {} of {}: another rank has ended or does not answer", self.rank, self.world)
    }

    fn failed(&self) -> impl FnOnce(TchError) -> GroupError {
        let what = self.what();
        move |cause| GroupError::because(&what, &cause)
    }

    fn work(&self, parts: Result<Vec<RawWork>, TchError>) -> Result<CollectiveWork, GroupError> {
        Ok(CollectiveWork { parts: parts.map_err(self.failed())?, what: self.what() })
    }
}

impl ProcessGroup for C10d {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce(&self, tensors: &[Tensor], how: Reduce) -> Result<CollectiveWork, GroupError> {
        let largest = how == Reduce::Max;
        self.work(tensors.iter().map(|tensor| self.raw.all_reduce(tensor, largest)).collect())
    }

    fn broadcast(&self, tensor: &Tensor, from: usize) -> Result<CollectiveWork, GroupError> {
        self.work(self.raw.broadcast(tensor, from).map(|work| vec![work]))
    }

    fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>, GroupError> {
        let raw = RawReducer::new(&self.raw, params, self.world, self.bucket_bytes).map_err(self.failed())?;
        Ok(Box::new(Reducer { raw, what: self.what() }))
    }

    fn count(&self, name: &str, add: i64) -> Result<i64, GroupError> {
        let name = CString::new(name).expect("a name without NUL");
        self.raw.count(&name, add).map_err(self.failed())
    }

    fn close(&self) -> Result<(), GroupError> {
        self.raw.close().map_err(self.failed())
    }
}

/// A reducer that starts the all-reduce of a bucket as soon as the backward pass has filled it; `csrc/reducer.cpp`.
#[derive(Debug)]
struct Reducer {
    raw: RawReducer,
    what: String,
}

impl GradientReducer for Reducer {
    fn clear(&self) {
        self.raw.clear().expect("buckets of dense gradients");
    }

    fn arm(&self) {
        self.raw.arm().expect("a lock that works");
    }

    fn finish(&self) -> Result<Overlap, GroupError> {
        let [early, buckets] = self.raw.finish().map_err(|cause| GroupError::because(&self.what, &cause))?;
        Ok(Overlap { early: early as usize, buckets: buckets as usize })
    }
}
