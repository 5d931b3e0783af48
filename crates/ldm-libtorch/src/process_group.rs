//! Several processes that train together, seen by one of them.

use std::fmt::{Debug, Display, Formatter};

use tch::{TchError, Tensor};

use crate::ffi::RawWork;

/// A meeting with the other ranks that did not come about, or broke off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupError(pub(crate) String);

impl Display for GroupError {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GroupError {}

impl GroupError {
    /// `what` is the sentence's head; of libtorch's words the first line.
    pub(crate) fn because(what: &str, cause: &TchError) -> Self {
        let cause = match cause {
            TchError::Torch(text) => text.clone(),
            other => other.to_string(),
        };
        let line = cause.lines().next().unwrap_or_default();
        // `[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] …`: the place is nobody's to look up.
        let line =
            line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, text)| text);
        Self(format!("{what}: {}", line.trim_end_matches('.')))
    }
}

/// How values of all ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Something under way between ranks; tensors that take part hold their result once it is waited for.
#[derive(Debug, Default)]
#[must_use = "the result is there after `wait`"]
pub struct Work {
    pub(crate) parts: Vec<RawWork>,
    /// `rank 1 of 2: …`, for the error.
    pub(crate) what: String,
}

impl Work {
    /// Waits until it is done; on CUDA, until the current stream would.
    ///
    /// # Errors
    /// When a rank has ended, or does not answer in time.
    pub fn wait(self) -> Result<(), GroupError> {
        for part in self.parts {
            part.wait().map_err(|cause| GroupError::because(&self.what, &cause))?;
        }
        Ok(())
    }
}

/// A group of processes, the *ranks*, each of which calls the same methods in the same order.
///
/// [`Single`] is a world of one, [`C10d`](crate::C10d) one of several processes.
pub trait ProcessGroup: Debug + Send + Sync {
    /// Which of them this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// Replaces each tensor, on every rank, by its reduction over all ranks. Asynchronous.
    ///
    /// # Errors
    /// When a rank has ended, or the device is not the group's.
    fn all_reduce(&self, tensors: &[Tensor], how: Reduce) -> Result<Work, GroupError>;

    /// Replaces `tensor` by rank `from`'s. Asynchronous.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn broadcast(&self, tensor: &Tensor, from: usize) -> Result<Work, GroupError>;

    /// Averages the gradients of `params`, all of one dtype on one device, while the backward pass runs.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn reducer(&self, params: &[Tensor]) -> Result<Box<dyn GradientReducer>, GroupError>;

    /// Adds `add` to a counter of that name, which all ranks share, and tells what it is then.
    ///
    /// # Errors
    /// When the rank that keeps it has ended.
    fn count(&self, name: &str, add: i64) -> Result<i64, GroupError>;
}

/// A world of one: everything is done already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl ProcessGroup for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce(&self, _tensors: &[Tensor], _how: Reduce) -> Result<Work, GroupError> {
        Ok(Work::default())
    }

    fn broadcast(&self, _tensor: &Tensor, _from: usize) -> Result<Work, GroupError> {
        Ok(Work::default())
    }

    fn reducer(&self, _params: &[Tensor]) -> Result<Box<dyn GradientReducer>, GroupError> {
        Ok(Box::new(Self))
    }

    /// Nobody waits for a counter in a world of one.
    fn count(&self, _name: &str, add: i64) -> Result<i64, GroupError> {
        Ok(add)
    }
}

impl GradientReducer for Single {
    fn arm(&self) {}

    fn finish(&self) -> Result<Overlap, GroupError> {
        Ok(Overlap::default())
    }
}

/// What averages gradients; see [`ProcessGroup::reducer`].
pub trait GradientReducer: Debug {
    /// The next backward pass is the step's last: its gradients, with what earlier passes left in them, are averaged.
    fn arm(&self);

    /// Waits until all gradients are the mean over the ranks. A parameter that has a gradient on one rank has one on all
    /// after it; one that has none anywhere stays without.
    ///
    /// # Errors
    /// When a rank has ended, or does not answer in time.
    fn finish(&self) -> Result<Overlap, GroupError>;
}

/// How much of a reduction ran beside the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Buckets that were under way before the backward pass had ended.
    pub early: usize,
    /// Buckets in all.
    pub buckets: usize,
}
