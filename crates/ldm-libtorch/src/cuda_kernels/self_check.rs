//! A comparison of the kernels with libtorch, before a GPU's first use: a driver or a GPU that nobody has tried must not
//! change images silently.

use tch::{Device, Kind, Tensor};

use super::geometry::GpuLimits;
use super::{BiasExtras, NormExtras, bias_add_on, geglu_on, group_norm_on};
use crate::kernels::GroupNormTensors;
use crate::{gradients, to_channels_last};

const GROUPS: i64 = 32;
const EPS: f64 = 1e-5;
/// `[B, C, h, w]`: groups of five channels, which no vector divides, and a number of pixels that no tile divides.
const SIZE: [i64; 4] = [2, 5 * GROUPS, 9, 7];

/// Compares every kernel, forward and backward, with libtorch in f64 on `device`.
///
/// # Errors
/// A sentence with the kernel and the difference.
pub(super) fn self_check(device: Device, limits: GpuLimits) -> Result<(), String> {
    // Without shared memory for a slab the norm takes its other kernels.
    let without_slab = GpuLimits { shared_bytes: 0, ..limits };
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        for (name, limits) in [("group_norm_slab", limits), ("group_norm", without_slab)] {
            compare(
                name,
                device,
                kind,
                &norm_inputs(),
                |inputs| {
                    let [x, weight, bias, channel_shift, image_shift, scale_shift] = inputs else {
                        unreachable!()
                    };
                    let extras = NormExtras {
                        channel_shift: Some(channel_shift),
                        image_shift: Some(image_shift),
                        scale_shift: Some(scale_shift),
                        silu: true,
                    };
                    let parameters = GroupNormTensors { groups: GROUPS, weight, bias, eps: EPS };
                    group_norm_on(limits, x, parameters, extras)
                },
                norm_of_libtorch,
            )?;
        }
        let sizes = [SIZE.to_vec(), vec![SIZE[1]], SIZE[..2].to_vec(), SIZE.to_vec()];
        compare(
            "bias_add",
            device,
            kind,
            &sizes,
            |inputs| {
                let [x, channel_bias, image_bias, residual] = inputs else { unreachable!() };
                let extras = BiasExtras {
                    channel_bias: Some(channel_bias),
                    image_bias: Some(image_bias),
                    residual: Some(residual),
                };
                bias_add_on(limits, x, extras)
            },
            sum_of_libtorch,
        )?;
        compare(
            "geglu",
            device,
            kind,
            &[vec![7, 3, 88]],
            |inputs| geglu_on(limits, &inputs[0]),
            geglu_of_libtorch,
        )?;
    }
    Ok(())
}

fn norm_inputs() -> Vec<Vec<i64>> {
    let [batch, channels, ..] = SIZE;
    vec![
        SIZE.to_vec(),
        vec![channels],
        vec![channels],
        vec![channels],
        vec![batch, channels],
        vec![batch, 2 * channels],
    ]
}

fn norm_of_libtorch(inputs: &[Tensor]) -> Tensor {
    let [x, weight, bias, channel_shift, image_shift, scale_shift] = inputs else { unreachable!() };
    let over_pixels = |of: &Tensor| of.unsqueeze(-1).unsqueeze(-1);
    let x = x + over_pixels(image_shift) + over_pixels(channel_shift);
    let normed = x.group_norm(GROUPS, Some(weight), Some(bias), EPS, true);
    let halves = over_pixels(scale_shift).chunk(2, 1);
    (normed * (&halves[0] + 1.) + &halves[1]).silu()
}

fn sum_of_libtorch(inputs: &[Tensor]) -> Tensor {
    let [x, channel_bias, image_bias, residual] = inputs else { unreachable!() };
    let over_pixels = |of: &Tensor| of.unsqueeze(-1).unsqueeze(-1);
    x + over_pixels(channel_bias) + over_pixels(image_bias) + residual
}

fn geglu_of_libtorch(inputs: &[Tensor]) -> Tensor {
    let halves = inputs[0].chunk(2, -1);
    &halves[0] * halves[1].gelu("none")
}

/// Numbers of about unit size that no generator draws: the caller's random state stays.
fn waves(size: &[i64], seed: usize, device: Device) -> Tensor {
    let count: i64 = size.iter().product();
    let at = Tensor::arange(count, (Kind::Double, device));
    (((&at * (1.37 + 0.11 * seed as f64)).sin() + (&at * 0.0173).cos()) * 1.1 + 0.3).view(size)
}

/// Compares a kernel in `kind` with libtorch in f64, for the same numbers, and then the gradients of each input.
fn compare(
    name: &str,
    device: Device,
    kind: Kind,
    sizes: &[Vec<i64>],
    ours: impl Fn(&[Tensor]) -> Option<Tensor>,
    libtorchs: impl Fn(&[Tensor]) -> Tensor,
) -> Result<(), String> {
    let format = |x: Tensor| if x.dim() == 4 { to_channels_last(&x) } else { x };
    let rounded: Vec<Tensor> = (sizes.iter().enumerate())
        .map(|(seed, size)| format(waves(size, seed, device).to_kind(kind)))
        .collect();
    let run = |kind: Kind, forward: &dyn Fn(&[Tensor]) -> Option<Tensor>| -> Result<Vec<Tensor>, String> {
        // A copy: a leaf of its own.
        let leaf = |of: &Tensor| of.detach().to_dtype(kind, false, true).set_requires_grad(true);
        let inputs: Vec<Tensor> = rounded.iter().map(leaf).collect();
        let y = forward(&inputs).ok_or_else(|| format!("{name} of {kind:?}: expected a result, got none"))?;
        let dy = format(waves(&y.size(), sizes.len(), device).to_kind(rounded[0].kind()).to_kind(kind));
        let of = [&(&y * dy).sum(y.kind())];
        let by: Vec<&Tensor> = inputs.iter().collect();
        let mut all = gradients(&of, &by).map_err(|error| format!("{name}: {error}"))?;
        all.insert(0, y.detach());
        Ok(all)
    };
    let tolerance = match kind {
        Kind::Float => 1e-5,
        // One rounding, of a relative half unit of 2⁻¹¹ and 2⁻⁸ at most.
        Kind::Half => 5e-4,
        _ => 4e-3,
    };
    let (found, expected) = (run(kind, &ours)?, run(Kind::Double, &|inputs| Some(libtorchs(inputs)))?);
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let difference = (found.to_kind(Kind::Double) - expected).norm() / expected.norm();
        let difference = difference.double_value(&[]);
        if difference.is_nan() || difference > tolerance {
            let of = if index == 0 { "result".to_owned() } else { format!("gradient {index}") };
            return Err(format!("{name} of {kind:?}: its {of} differs from libtorch's by {difference:.1e}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulated_kernels_pass() {
        let passed = crate::cuda_kernels::with_emulated_gpu(GpuLimits::SM_90, 0, || {
            self_check(Device::Cpu, GpuLimits::SM_90)
        });
        assert_eq!(passed.unwrap_or(Ok(())), Ok(()));
    }

    #[test]
    fn a_difference_is_an_error() {
        let sizes = [vec![3, 5]];
        let twice = |inputs: &[Tensor]| &inputs[0] * 2.;
        let error = |ours: &dyn Fn(&[Tensor]) -> Tensor| {
            compare("twice", Device::Cpu, Kind::Float, &sizes, |inputs| Some(ours(inputs)), twice)
                .unwrap_err()
        };
        let found = error(&|inputs| &inputs[0] * 2.001);
        assert!(found.starts_with("twice of Float: its result differs"), "{found}");
        let found = error(&|inputs| &inputs[0] * 2. + (&inputs[0] - inputs[0].detach()));
        assert!(found.starts_with("twice of Float: its gradient 1 differs"), "{found}");
        let found = error(&|inputs| &inputs[0] * f64::NAN);
        assert!(found.contains("NaN"), "{found}");
    }
}
