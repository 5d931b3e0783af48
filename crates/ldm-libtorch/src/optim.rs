//! Optimizer steps over all parameters in one call, without synchronization.

use tch::Tensor;

use crate::ffi;

/// Hyper-parameters of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay; the step shrinks weights by `lr · weight_decay`.
    pub weight_decay: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
}

/// The parameters of an AdamW step and their state; lists of equal length.
#[derive(Debug, Clone, Copy)]
pub struct AdamWLists<'a> {
    /// The parameters.
    pub params: &'a [Tensor],
    /// Their gradients, of the same shapes.
    pub grads: &'a [Tensor],
    /// The first moments, of the same shapes.
    pub exp_avgs: &'a [Tensor],
    /// The second moments, of the same shapes.
    pub exp_avg_sqs: &'a [Tensor],
    /// f32 scalars, one per parameter on its device: the steps taken.
    pub steps: &'a [Tensor],
}

/// Takes one AdamW step on every parameter with libtorch's fused kernel, and counts it in `steps`.
/// `torch.optim.AdamW(fused=True)`.
///
/// `grad_scale`, an f32 scalar on the same device, divides the gradients, which the kernel writes back: unscaling and
/// clipping need no pass of their own. If `found_inf`, such a scalar too, is 1, nothing changes and no step is counted.
/// The host reads neither value. Loshchilov & Hutter 2019, algorithm 2.
///
/// # Panics
/// When the lists differ in length, shape, memory format or device.
pub fn fused_adamw(
    lists: AdamWLists<'_>,
    step: AdamWStep,
    grad_scale: Option<&Tensor>,
    found_inf: Option<&Tensor>,
) {
    let AdamWLists { params, grads, exp_avgs, exp_avg_sqs, steps } = lists;
    if params.is_empty() {
        return;
    }
    let AdamWStep { lr, beta1, beta2, weight_decay, eps } = step;
    let lists = [params, grads, exp_avgs, exp_avg_sqs, steps];
    ffi::fused_adamw(lists, [lr, beta1, beta2, weight_decay, eps], grad_scale, found_inf)
        .expect("lists of one length, shape, memory format and device");
}

/// Leaves the parameters without a gradient, as `torch.optim.Optimizer.zero_grad(set_to_none=True)`: the next backward
/// pass keeps the gradients it computes instead of adding them to zeros.
///
/// # Panics
/// Never in practice: parameters have a place for their gradient.
pub fn forget_gradients(params: &[Tensor]) {
    ffi::forget_gradients(params).expect("parameters");
}

/// Computes `target += weight · (source − target)` for every pair: an EMA step with `weight = 1 − decay`.
///
/// # Panics
/// When the lists differ in length, shape, dtype or device.
pub fn lerp_all(targets: &[Tensor], sources: &[Tensor], weight: f64) {
    if !targets.is_empty() {
        ffi::foreach_lerp(targets, sources, weight).expect("lists of one shape, dtype and device");
    }
}

/// Returns the Euclidean norm of all elements of all tensors, an f32 scalar on their device.
///
/// # Panics
/// When the list is empty or spans devices.
pub fn total_norm(tensors: &[Tensor]) -> Tensor {
    ffi::total_norm(tensors).expect("at least one tensor, on one device")
}

/// Returns the gradients of the sum of `outputs` with respect to `inputs`, and retains the graph
/// (`torch.autograd.grad`).
///
/// # Errors
/// When the outputs do not depend on an input, or gradients are disabled.
pub fn gradients(outputs: &[&Tensor], inputs: &[&Tensor]) -> Result<Vec<Tensor>, tch::TchError> {
    ffi::gradients([outputs, inputs], false)
}

/// [`gradients`] that can be differentiated again, for gradient penalties.
/// `torch.autograd.grad(create_graph=True)`.
///
/// # Errors
/// As [`gradients`].
pub fn differentiable_gradients(
    outputs: &[&Tensor],
    inputs: &[&Tensor],
) -> Result<Vec<Tensor>, tch::TchError> {
    ffi::gradients([outputs, inputs], true)
}
