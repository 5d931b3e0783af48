//! Operations that overwrite a tensor of the caller.

use ldm_core::nn::{add, silu};
use tch::{Device, Kind, Tensor};

fn normal(kind: Kind) -> Tensor {
    Tensor::randn([2, 3, 4, 5], (Kind::Float, Device::Cpu)).to_kind(kind)
}

#[test]
fn values_equal_those_of_new_tensors() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let (x, h) = (normal(kind), normal(kind));
        assert_eq!(silu(x.copy()), x.silu());
        assert_eq!(add(h.copy(), &x), &x + &h);
    }
}

#[test]
fn memory_is_reused_only_without_gradients() {
    let (x, h) = (normal(Kind::Float), normal(Kind::Float));
    let at = h.data_ptr();
    let h = add(silu(h), &x);
    assert_eq!(h.data_ptr(), at);
    let weight = normal(Kind::Float).set_requires_grad(true);
    let sum = add(silu(&weight * 1.), &x).sum(Kind::Float);
    sum.backward();
    let sigmoid = weight.detach().sigmoid();
    let slope = &sigmoid * (weight.detach() * (1i64 - &sigmoid) + 1.);
    assert!((weight.grad() - slope).abs().max().double_value(&[]) < 1e-6);
    // Also if only the other term needs a gradient.
    let before = h.copy();
    let sum = add(h.shallow_clone(), &weight);
    assert!(sum.requires_grad() && h == before);
}

#[test]
fn a_sum_has_the_wider_dtype_and_the_memory_format_of_x() {
    let (x, h) = (normal(Kind::Float), normal(Kind::BFloat16));
    assert_eq!(add(h.copy(), &x), &x + &h);
    let [contiguous, last] = [(); 2].map(|()| normal(Kind::Float));
    let last = ldm_libtorch::to_channels_last(&last);
    for (x, h) in [(&contiguous, &last), (&last, &contiguous), (&last, &last)] {
        let sum = add(h.copy(), x);
        assert_eq!((sum.stride(), &sum), (x.stride(), &(x + h)));
    }
}
