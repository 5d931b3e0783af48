//! The evaluation of one shape, with inputs and outputs at fixed places in memory.

use ldm_libtorch::CudaGraph;
use tch::{Kind, TchError, Tensor};

use crate::conditioning_cache::{ConditioningCache, overwrite};
use crate::control_net::ControlResiduals;
use crate::evaluation::{DeepFeatures, Evaluation};
use crate::unet::UNet;

/// Everything that the course of an evaluation depends on, other than values: shapes and dtypes of inputs, and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Of x, the concat, the label, the keys and the residuals, from which all others follow.
    inputs: [Option<(Vec<i64>, Kind)>; 5],
    /// The depth of deep features, and whether they are given.
    deep: Option<(usize, bool)>,
}

impl Signature {
    pub(crate) fn of(x: &Tensor, cond: &ConditioningCache, options: &Evaluation<'_>) -> Self {
        let keys = cond.context.iter().flatten().next().map(|pair| &pair.key);
        let residual = options.control.map(|control| &control.middle);
        let inputs = [Some(x), cond.concat.as_ref(), cond.label.as_ref(), keys, residual];
        Self {
            inputs: inputs.map(|input| input.map(|input| (input.size(), input.kind()))),
            deep: options.deep.as_ref().map(|deep| (deep.depth, deep.features.is_some())),
        }
    }
}

/// The evaluation of one [`Signature`], which reads and writes the same memory at every call.
#[derive(Debug)]
pub(crate) struct Recorded {
    signature: Signature,
    inputs: RecordedInputs,
    outputs: RecordedOutputs,
    play: Play,
}

/// The inputs, at their places.
#[derive(Debug)]
struct RecordedInputs {
    x: Tensor,
    t: Tensor,
    cond: ConditioningCache,
    control: Option<ControlResiduals>,
    /// Deep features, if they are given.
    features: Option<Tensor>,
    depth: Option<usize>,
}

/// The outputs, at their places.
#[derive(Debug)]
struct RecordedOutputs {
    y: Tensor,
    /// Deep features, if they are computed.
    features: Option<Tensor>,
}

/// The way from the inputs to the outputs.
#[derive(Debug)]
enum Play {
    /// By the launches of a former evaluation.
    Graph(CudaGraph),
    /// By another evaluation, on any device; the outputs are NaN meanwhile, which nothing may depend on.
    Again,
}

impl Recorded {
    /// Records a CUDA graph of `unet`.
    ///
    /// # Errors
    /// As [`CudaGraph::record`].
    pub(crate) fn graph(
        unet: &UNet,
        x: &Tensor,
        cond: &ConditioningCache,
        options: &Evaluation<'_>,
    ) -> Result<Self, TchError> {
        let signature = Signature::of(x, cond, options);
        let inputs = RecordedInputs::new(x, cond, options);
        let (graph, outputs) = CudaGraph::record(x.device(), || inputs.run(unet))?;
        Ok(Self { signature, inputs, outputs, play: Play::Graph(graph) })
    }

    /// Evaluates `unet` anew at every call.
    pub(crate) fn again(unet: &UNet, x: &Tensor, cond: &ConditioningCache, options: &Evaluation<'_>) -> Self {
        let inputs = RecordedInputs::new(x, cond, options);
        let outputs = inputs.run(unet);
        Self { signature: Signature::of(x, cond, options), inputs, outputs, play: Play::Again }
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Returns true if the last evaluation had the same conditioning, or another part of it.
    pub(crate) fn has(&self, cond: &ConditioningCache) -> bool {
        self.inputs.cond.is_of(cond)
    }

    /// [`UNet::evaluate`] at level `t`, of inputs with the same signature. What it returns is the caller's.
    pub(crate) fn evaluate(
        &mut self,
        unet: &UNet,
        x: &Tensor,
        t: f64,
        cond: &ConditioningCache,
        options: Evaluation<'_>,
    ) -> Tensor {
        if let Play::Again = self.play {
            self.outputs.all().for_each(|output| drop(output.fill_(f64::NAN)));
        }
        self.inputs.overwrite(x, t, cond, &options);
        match &self.play {
            Play::Graph(graph) => graph.replay(),
            Play::Again => self.outputs.overwrite(&self.inputs.run(unet)),
        }
        if let (Some(deep), Some(features)) = (options.deep, &self.outputs.features) {
            *deep.features = Some(features.copy());
        }
        self.outputs.y.copy()
    }
}

impl RecordedInputs {
    fn new(x: &Tensor, cond: &ConditioningCache, options: &Evaluation<'_>) -> Self {
        let copy = |residuals: &ControlResiduals| ControlResiduals {
            down: residuals.down.iter().map(Tensor::copy).collect(),
            middle: residuals.middle.copy(),
        };
        Self {
            x: x.copy(),
            t: Tensor::zeros([x.size()[0]], (Kind::Float, x.device())),
            cond: cond.copy(),
            control: options.control.map(copy),
            features: options.deep.as_ref().and_then(|deep| deep.features.as_ref().map(Tensor::copy)),
            depth: options.deep.as_ref().map(|deep| deep.depth),
        }
    }

    fn overwrite(&mut self, x: &Tensor, t: f64, cond: &ConditioningCache, options: &Evaluation<'_>) {
        self.x.copy_(x);
        let _ = self.t.fill_(t);
        self.cond.overwrite(cond);
        if let (Some(place), Some(control)) = (&mut self.control, options.control) {
            place.middle.copy_(&control.middle);
            place.down.iter_mut().zip(&control.down).for_each(|(place, residual)| place.copy_(residual));
        }
        overwrite(&mut self.features, options.deep.as_ref().and_then(|deep| deep.features.as_ref()));
    }

    fn run(&self, unet: &UNet) -> RecordedOutputs {
        let mut features = self.features.as_ref().map(Tensor::shallow_clone);
        let deep = self.depth.map(|depth| DeepFeatures { depth, features: &mut features });
        let options = Evaluation { control: self.control.as_ref(), deep, merged_tokens: 0. };
        let y = unet.evaluate(&self.x, &self.t, &self.cond, options);
        RecordedOutputs { y, features: features.filter(|_| self.features.is_none()) }
    }
}

impl RecordedOutputs {
    fn all(&mut self) -> impl Iterator<Item = &mut Tensor> {
        [&mut self.y].into_iter().chain(&mut self.features)
    }

    fn overwrite(&mut self, with: &Self) {
        self.y.copy_(&with.y);
        overwrite(&mut self.features, with.features.as_ref());
    }
}
