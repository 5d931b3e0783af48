//! Evaluations that are recorded once and then replayed.

use std::cell::RefCell;

use ldm_libtorch::{is_autocast, is_counting_operations};
use tch::{Device, Kind, Tensor};

use crate::conditioning_cache::ConditioningCache;
use crate::evaluation::Evaluation;
use crate::recorded::{Recorded, Signature};
use crate::unet::UNet;

/// Shapes that are kept, each with memory for its inputs and outputs. Guidance in an interval has two.
const MOST: usize = 4;

/// Evaluations of a shape before it is recorded, which takes the time of about three.
const BEFORE: usize = 4;

/// Positions of all maps of x, beyond which nothing is recorded: four times those of an image of 512 x 512 pixels with
/// guidance. The kernels of larger maps take longer than their launches, and a recording keeps the memory of all of them.
const MOST_POSITIONS: i64 = 4 * 2 * 64 * 64;

/// Evaluations of one U-Net that were recorded: on CUDA, the launches of all kernels of a shape are a graph, launched at once.
/// A U-Net has about a thousand kernels, whose launches take longer than the kernels themselves in small batches.
///
/// A shape is recorded after a few evaluations. Recordings are dropped when weights have moved, for other weights, dtypes or
/// memory formats; weights that are overwritten are read anew.
///
/// Merged tokens are not recorded, whose number is read back from the device, and neither is anything within autocast,
/// whose casts of the weights are dropped at its end.
#[derive(Debug, Default)]
pub struct Recordings {
    kind: RecordingKind,
    state: RefCell<RecordingState>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum RecordingKind {
    #[default]
    Never,
    Graphs,
    Again,
}

#[derive(Debug, Default)]
struct RecordingState {
    /// The shapes of late, each with the number of its evaluations.
    seen: Vec<(Signature, usize)>,
    /// The last is that of the last evaluation.
    recorded: Vec<Recorded>,
    weights: Vec<WeightPlace>,
    /// The warning of a failure, until it is taken.
    failure: Option<String>,
    failed: bool,
}

/// Address, dtype and strides of a weight.
#[derive(Debug, PartialEq, Eq)]
struct WeightPlace(usize, Kind, Vec<i64>);

impl Recordings {
    /// Graphs on CUDA, nothing elsewhere.
    pub fn on(device: Device) -> Self {
        Self::new(if device.is_cuda() { RecordingKind::Graphs } else { RecordingKind::Never })
    }

    /// On any device and at once, evaluations that have their inputs and outputs where those of a graph are: what tests
    /// compare with plain evaluations.
    pub fn again() -> Self {
        Self::new(RecordingKind::Again)
    }

    fn new(kind: RecordingKind) -> Self {
        Self { kind, state: RefCell::default() }
    }

    /// The number of recorded shapes.
    pub fn count(&self) -> usize {
        self.state.borrow().recorded.len()
    }

    /// Returns, once, a warning if a recording failed. Nothing is recorded since.
    pub fn take_failure(&self) -> Option<String> {
        self.state.borrow_mut().failure.take()
    }

    /// [`UNet::evaluate`] with all samples at level `t`, of a recording where there is one; its results have no gradient.
    pub fn evaluate(
        &self,
        unet: &UNet,
        x: &Tensor,
        t: f64,
        cond: &ConditioningCache,
        options: Evaluation<'_>,
    ) -> Tensor {
        if self.kind != RecordingKind::Never && can_be_recorded(x, &options) {
            let mut state = self.state.borrow_mut();
            if let Some(recorded) = state.find(self.kind, unet, x, cond, &options) {
                return tch::no_grad(|| recorded.evaluate(unet, x, t, cond, options));
            }
        }
        let t = Tensor::full([x.size()[0]], t, (Kind::Float, x.device()));
        unet.evaluate(x, &t, cond, options)
    }
}

/// Returns true if the evaluation neither waits for the device nor is large, and its operations are not counted.
fn can_be_recorded(x: &Tensor, options: &Evaluation<'_>) -> bool {
    let size = x.size();
    let positions = size[0] * size[2..].iter().product::<i64>();
    options.merged_tokens == 0.
        && positions <= MOST_POSITIONS
        && !x.requires_grad()
        && !is_autocast(x.device())
        && !is_counting_operations()
}

impl RecordingState {
    /// The recording of a shape, made if it is time.
    fn find(
        &mut self,
        kind: RecordingKind,
        unet: &UNet,
        x: &Tensor,
        cond: &ConditioningCache,
        options: &Evaluation<'_>,
    ) -> Option<&mut Recorded> {
        let signature = Signature::of(x, cond, options);
        let of_shape = |recorded: &Recorded| *recorded.signature() == signature;
        let known = self.recorded.iter().rev().find(|each| of_shape(each));
        // A conditioning is valid as long as the weights do not change.
        if known.is_none_or(|recorded| !recorded.has(cond)) {
            self.drop_moved(unet);
        }
        if let Some(index) = self.recorded.iter().position(of_shape) {
            let recorded = self.recorded.remove(index);
            self.recorded.push(recorded);
        } else {
            self.record(kind, &signature, unet, x, cond, options)?;
        }
        self.recorded.last_mut()
    }

    /// Records a shape that was seen often enough, in place of the one that was not used for longest.
    fn record(
        &mut self,
        kind: RecordingKind,
        signature: &Signature,
        unet: &UNet,
        x: &Tensor,
        cond: &ConditioningCache,
        options: &Evaluation<'_>,
    ) -> Option<()> {
        if kind == RecordingKind::Graphs && (self.failed || self.count(signature) <= BEFORE) {
            return None;
        }
        if self.recorded.len() == MOST {
            self.recorded.remove(0);
        }
        let recorded = match kind {
            RecordingKind::Never => return None,
            RecordingKind::Again => tch::no_grad(|| Recorded::again(unet, x, cond, options)),
            RecordingKind::Graphs => match tch::no_grad(|| Recorded::graph(unet, x, cond, options)) {
                Ok(recorded) => recorded,
                Err(error) => {
                    let error = error.to_string();
                    let reason = error.lines().next().unwrap_or_default();
                    self.failure =
                        Some(format!("CUDA graphs are not used, since one could not be recorded: {reason}"));
                    self.failed = true;
                    return None;
                }
            },
        };
        self.recorded.push(recorded);
        Some(())
    }

    /// Counts an evaluation of a shape, and returns their number.
    fn count(&mut self, signature: &Signature) -> usize {
        let before = self.seen.iter().position(|(each, _)| each == signature);
        let count = 1 + before.map_or(0, |index| self.seen.remove(index).1);
        if self.seen.len() == 2 * MOST {
            self.seen.remove(0);
        }
        self.seen.push((signature.clone(), count));
        count
    }

    /// Drops the recordings if a weight has another place, dtype or memory format than in them.
    fn drop_moved(&mut self, unet: &UNet) {
        let place = |weight: &Tensor| WeightPlace(weight.data_ptr() as usize, weight.kind(), weight.stride());
        let weights: Vec<WeightPlace> = unet.weights().iter().map(place).collect();
        if weights != self.weights {
            self.recorded.clear();
            self.weights = weights;
        }
    }
}
