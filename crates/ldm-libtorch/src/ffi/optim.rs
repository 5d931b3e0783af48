//! Optimizer steps and gradients: the functions of `csrc/optim.cpp`.

use std::ffi::c_int;

use tch::{TchError, Tensor};

use super::{Out, Ptr, check, new_tensor, pointers};

unsafe extern "C" {
    fn ldm_fused_adamw(
        lists: *const *const Ptr,
        count: usize,
        numbers: *const f64,
        grad_scale: Ptr,
        found_inf: Ptr,
    ) -> c_int;
    fn ldm_foreach_lerp(targets: *const Ptr, sources: *const Ptr, count: usize, weight: f64) -> c_int;
    fn ldm_total_norm(tensors: *const Ptr, count: usize, out: *mut Out) -> c_int;
    fn ldm_grad(tensors: *const Ptr, outputs: usize, inputs: usize, graph: c_int, grads: *mut Out) -> c_int;
    fn ldm_forget_gradients(params: *const Ptr, count: usize) -> c_int;
}

pub(crate) fn fused_adamw(
    lists: [&[Tensor]; 5],
    numbers: [f64; 5],
    grad_scale: Option<&Tensor>,
    found_inf: Option<&Tensor>,
) -> Result<(), TchError> {
    let count = lists[0].len();
    assert!(lists.iter().all(|list| list.len() == count), "one gradient and one state per parameter");
    let lists = lists.map(pointers);
    let places = lists.each_ref().map(Vec::as_ptr);
    let [grad_scale, found_inf] =
        [grad_scale, found_inf].map(|scalar| scalar.map_or(std::ptr::null(), Tensor::as_ptr));
    // SAFETY: five arrays of `count` live handles, five numbers, and two handles, live or null.
    check(unsafe { ldm_fused_adamw(places.as_ptr(), count, numbers.as_ptr(), grad_scale, found_inf) })
}

pub(crate) fn foreach_lerp(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<(), TchError> {
    assert_eq!(targets.len(), sources.len(), "one source per target");
    let (targets, sources) = (pointers(targets), pointers(sources));
    // SAFETY: two arrays of the same number of live handles.
    check(unsafe { ldm_foreach_lerp(targets.as_ptr(), sources.as_ptr(), targets.len(), weight) })
}

pub(crate) fn total_norm(tensors: &[Tensor]) -> Result<Tensor, TchError> {
    let tensors = pointers(tensors);
    // SAFETY: an array of live handles; a new handle out.
    new_tensor(|out| unsafe { ldm_total_norm(tensors.as_ptr(), tensors.len(), out) })
}

pub(crate) fn gradients([of, by]: [&[&Tensor]; 2], graph: bool) -> Result<Vec<Tensor>, TchError> {
    let both = pointers(&[of, by].concat());
    let mut grads: Vec<Out> = vec![std::ptr::null_mut(); by.len()];
    // SAFETY: an array of live handles; `grads` has room for one handle per input.
    check(unsafe { ldm_grad(both.as_ptr(), of.len(), by.len(), c_int::from(graph), grads.as_mut_ptr()) })?;
    // SAFETY: on success every slot holds a new handle.
    Ok(grads.into_iter().map(|grad| unsafe { Tensor::from_ptr(grad) }).collect())
}

pub(crate) fn forget_gradients(params: &[Tensor]) -> Result<(), TchError> {
    let params = pointers(params);
    // SAFETY: an array of live handles.
    check(unsafe { ldm_forget_gradients(params.as_ptr(), params.len()) })
}
