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

/// Takes one AdamW step on every parameter with libtorch's fused kernel. `torch.optim.AdamW(fused=True)`.
///
/// `steps` are f32 scalars, one per parameter on its device, incremented here. If `found_inf`, an f32 scalar on the same
/// device, is 1, nothing changes and no step is counted; its value is not read by the host.
/// Loshchilov & Hutter 2019, algorithm 2.
///
/// # Panics
/// When the lists differ in length, shape or device.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    step: AdamWStep,
    found_inf: Option<&Tensor>,
) {
    if params.is_empty() {
        return;
    }
    let AdamWStep { lr, beta1, beta2, weight_decay, eps } = step;
    let lists = [params, grads, exp_avgs, exp_avg_sqs, steps];
    ffi::fused_adamw(lists, [lr, beta1, beta2, weight_decay, eps], found_inf)
        .expect("lists of one length, shape and device");
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

/// Multiplies every tensor in place by the scalar tensor `factor`.
///
/// # Panics
/// When `factor` is not a scalar or is on another device.
pub fn scale_all(tensors: &[Tensor], factor: &Tensor) {
    if !tensors.is_empty() {
        ffi::foreach_scale(tensors, factor).expect("a scalar on the tensors' device");
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
