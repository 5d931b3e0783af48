//! Process groups for distributed training.

use std::fmt::Debug;

use tch::{TchError, Tensor};

use crate::ffi::RawWork;
use crate::optim::forget_gradients;

/// A failed or lost connection to the other ranks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GroupError(pub(crate) String);

impl GroupError {
    /// Joins `what` and the first line of libtorch's message.
    pub(crate) fn because(what: &str, cause: &TchError) -> Self {
        let cause = match cause {
            TchError::Torch(text) => text.clone(),
            other => other.to_string(),
        };
        let line = cause.lines().next().unwrap_or_default();
        // `[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] …`: the source location helps no user.
        let line =
            line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, text)| text);
        Self(format!("{what}: {}", line.trim_end_matches('.')))
    }
}

/// The reduction of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The maximum.
    Max,
}

/// A collective operation in progress; its tensors hold the result after [`CollectiveWork::wait`].
#[derive(Debug, Default)]
#[must_use = "the result is available after `wait`"]
pub struct CollectiveWork {
    pub(crate) parts: Vec<RawWork>,
    /// `rank 1 of 2: …`, for the error.
    pub(crate) what: String,
}

impl CollectiveWork {
    /// Waits for completion; on CUDA, makes the current stream wait.
    ///
    /// # Errors
    /// When a rank has ended or does not answer in time.
    pub fn wait(self) -> Result<(), GroupError> {
        for part in self.parts {
            part.wait().map_err(|cause| GroupError::because(&self.what, &cause))?;
        }
        Ok(())
    }
}

/// A group of processes, the *ranks*, each of which calls the same methods in the same order.
///
/// [`Single`] is a group of one process, [`C10d`](crate::C10d) a group of several.
pub trait ProcessGroup: Debug + Send + Sync {
    /// Returns the rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn world(&self) -> usize;

    /// Replaces each tensor, on every rank, with its reduction over all ranks. Asynchronous.
    ///
    /// # Errors
    /// When a rank has ended, or the device is not the group's.
    fn all_reduce(&self, tensors: &[Tensor], how: Reduce) -> Result<CollectiveWork, GroupError>;

    /// Replaces `tensor` with that of rank `from`. Asynchronous.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn broadcast(&self, tensor: &Tensor, from: usize) -> Result<CollectiveWork, GroupError>;

    /// Averages the gradients of `params`, all of one dtype on one device, while the backward pass runs.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>, GroupError>;

    /// Adds `add` to the counter `name`, which all ranks share, and returns its new value.
    ///
    /// # Errors
    /// When the rank that stores it has ended.
    fn count(&self, name: &str, add: i64) -> Result<i64, GroupError>;

    /// Ends the group, after the last operation of every rank; operations after it fail. A group that is dropped without
    /// it aborts NCCL's communicators, with a warning.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn close(&self) -> Result<(), GroupError>;
}

/// A group of one process, where every operation is complete at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl ProcessGroup for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce(&self, _tensors: &[Tensor], _how: Reduce) -> Result<CollectiveWork, GroupError> {
        Ok(CollectiveWork::default())
    }

    fn broadcast(&self, _tensor: &Tensor, _from: usize) -> Result<CollectiveWork, GroupError> {
        Ok(CollectiveWork::default())
    }

    fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>, GroupError> {
        Ok(Box::new(OwnGradients(params.iter().map(Tensor::shallow_clone).collect())))
    }

    /// Counters are not stored: no other rank reads them.
    fn count(&self, _name: &str, add: i64) -> Result<i64, GroupError> {
        Ok(add)
    }

    fn close(&self) -> Result<(), GroupError> {
        Ok(())
    }
}

/// The parameters of a rank without others, whose gradients are the mean.
#[derive(Debug)]
struct OwnGradients(Vec<Tensor>);

impl GradientReducer for OwnGradients {
    fn clear(&self) {
        forget_gradients(&self.0);
    }

    fn arm(&self) {}

    fn finish(&self) -> Result<Overlap, GroupError> {
        Ok(Overlap::default())
    }
}

/// Averaging of gradients; see [`ProcessGroup::reducer`].
pub trait GradientReducer: Debug {
    /// Clears the gradients, before the first backward pass of a step.
    fn clear(&self);

    /// Announces the last backward pass of a step: its gradients, with those accumulated before, are averaged.
    fn arm(&self);

    /// Waits until all gradients are the mean over the ranks. A parameter with a gradient on one rank then has one on all
    /// ranks; one without any gradient stays without.
    ///
    /// # Errors
    /// When a rank has ended or does not answer in time.
    fn finish(&self) -> Result<Overlap, GroupError>;
}

/// The share of a reduction that overlapped the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Buckets started before the backward pass ended.
    pub early: usize,
    /// All buckets.
    pub buckets: usize,
}
