//! The change of one weight in a file.

use tch::{Kind, Tensor};

use super::adapter::{Adapter, bare};
use super::factor_matrix::FactorMatrix;

/// The change of one weight: that of its factors, and with DoRA new magnitudes.
#[derive(Debug)]
pub struct Update {
    /// The factors of the change.
    pub factors: Factors,
    /// DoRA's magnitudes.
    pub magnitude: Option<Magnitude>,
}

/// Factors of a change. The scale is `alpha/r`.
#[derive(Debug)]
pub enum Factors {
    /// LoRA, and LoCon of convolutions: `scale · B·A`.
    LowRank(Adapter),
    /// LoCon with a core: `scale · W`.
    Tucker(FactorMatrix, f64),
    /// LoHa (Hyeon-Woo et al. 2021, FedPara): `scale · W_1 ⊙ W_2`.
    Hadamard([FactorMatrix; 2], f64),
    /// LoKr (Yeh et al. 2023, LyCORIS): `scale · W_1 ⊗ W_2`, where the first has no kernel.
    Kronecker([FactorMatrix; 2], f64),
}

/// Magnitudes `m` of a DoRA (Liu et al. 2024, eq. 5): the weight becomes `m · (W + ΔW) / ‖W + ΔW‖`.
#[derive(Debug)]
pub struct Magnitude {
    /// `[n]`.
    values: Tensor,
    /// The axis of the weight with a norm for each index: 0, its outputs, or 1, its inputs.
    axis: i64,
}

impl From<Adapter> for Update {
    fn from(adapter: Adapter) -> Self {
        Self { factors: Factors::LowRank(adapter), magnitude: None }
    }
}

impl Update {
    /// Returns true for a change of a weight of `shape`.
    pub fn fits(&self, shape: &[i64]) -> bool {
        self.factors.fits(shape)
    }

    /// Computes the change of `weight` in f32: `strength · ΔW`, with DoRA `strength · (W' − W)`.
    ///
    /// # Panics
    /// When it does not [fit](Self::fits) the weight.
    pub fn change(&self, weight: &Tensor, strength: f64) -> Tensor {
        let Some(Magnitude { values, axis }) = &self.magnitude else {
            return self.factors.change(weight, strength);
        };
        let sum = weight + self.factors.change(weight, 1.);
        let mut shape = vec![1; sum.dim()];
        shape[*axis as usize] = -1;
        let others: Vec<i64> = (0..sum.dim() as i64).filter(|each| each != axis).collect();
        let norm = sum.square().sum_dim_intlist(others, true, Kind::Float).sqrt() + f64::from(f32::EPSILON);
        let values = values.to_device(weight.device()).to_kind(Kind::Float).view(&*shape);
        (sum * (values / norm) - weight) * strength
    }
}

impl Factors {
    fn fits(&self, shape: &[i64]) -> bool {
        let [out, inner @ ..] = shape else { return false };
        // Kernels may be flattened, or omitted where they are 1.
        let columns: i64 = inner.iter().product();
        let same = |rest: &[i64]| bare(rest) == bare(inner) || rest == [columns];
        match self {
            Self::LowRank(adapter) => adapter.fits(shape),
            Self::Tucker(matrix, _) => {
                matrix.shape().is_some_and(|found| found[0] == *out && bare(&found[1..]) == bare(inner))
            }
            Self::Hadamard(both, _) => both
                .iter()
                .all(|matrix| matrix.shape().is_some_and(|found| found[0] == *out && same(&found[1..]))),
            Self::Kronecker([first, second], _) => {
                let (Some(first), Some(second)) = (first.shape(), second.shape()) else { return false };
                first[2..].iter().all(|side| *side == 1) && kronecker(&first, &second, shape)
            }
        }
    }

    fn change(&self, weight: &Tensor, strength: f64) -> Tensor {
        let (shape, device) = (weight.size(), weight.device());
        match self {
            Self::LowRank(adapter) => {
                // On the device of the weight.
                let moved = Adapter {
                    down: adapter.down.to_device(device),
                    up: adapter.up.to_device(device),
                    alpha: adapter.alpha,
                };
                moved.change(&shape, strength)
            }
            Self::Tucker(matrix, scale) => (matrix.value(weight) * (strength * scale)).view(&*shape),
            Self::Hadamard([first, second], scale) => {
                let flat = |matrix: &FactorMatrix| matrix.value(weight).flatten(1, -1);
                (flat(first) * flat(second) * (strength * scale)).view(&*shape)
            }
            Self::Kronecker([first, second], scale) => {
                let first = first.value(weight);
                // [a, b] ⊗ [c, d·kh·kw] has rows of b·d·kh·kw, those of the weight.
                let product = first.flatten(1, -1).kron(&second.value(weight).flatten(1, -1));
                (product * (strength * scale)).reshape(&*shape)
            }
        }
    }
}

/// Returns true where `[a, b] ⊗ [c, d, …]` has the shape of the weight; the kernel may be flattened.
fn kronecker(first: &[i64], second: &[i64], shape: &[i64]) -> bool {
    let ([out, inner @ ..], [c, d, kernel @ ..]) = (shape, second) else { return false };
    let area: i64 = inner.iter().skip(1).product();
    let (whole, d) =
        if kernel.is_empty() { (d % area == 0, d / area) } else { (bare(kernel) == bare(&inner[1..]), *d) };
    whole && first[0].saturating_mul(*c) == *out && inner.first() == Some(&first[1].saturating_mul(d))
}

impl Magnitude {
    /// Magnitudes for a weight of `shape`, by their own shape: LyCORIS has `[out, 1, …]`, or `[1, in, 1, …]` without
    /// `wd_on_out`; PEFT (`by_output`) has `[out]`, in convolutions `[1, out, 1, 1]`. None where they fit neither.
    pub(super) fn new(values: &Tensor, shape: &[i64], by_output: bool) -> Option<Self> {
        let [out, inputs, ..] = shape else { return None };
        let size = values.size();
        let count = values.numel() as i64;
        let along = size.iter().position(|side| *side == count).filter(|_| count > 0)?;
        let axis = match along {
            1 if !by_output && count == *inputs => 1,
            // The second axis has outputs in PEFT's convolutions, under kohya's names too.
            0 | 1 if count == *out => 0,
            _ => return None,
        };
        Some(Self { values: values.flatten(0, -1), axis })
    }
}
