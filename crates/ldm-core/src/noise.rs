//! Sources of random noise. Only parameter initialization draws from elsewhere.

use std::collections::VecDeque;

use ldm_libtorch::{Generator, upload};
use tch::{Kind, Tensor};

/// A source of noise, passed as an argument wherever randomness is needed, so that draws can be replayed.
pub trait NoiseSource {
    /// Draws N(0, 1) of the shape, dtype and device of `x`.
    fn like(&mut self, x: &Tensor) -> Tensor;

    /// Draws `count` i64 uniform in `0..high`, on the device of `x`.
    fn integers(&mut self, high: i64, count: i64, x: &Tensor) -> Tensor;

    /// Draws `count` f32 uniform in `[0, 1)`, on the device of `x`.
    fn uniform(&mut self, count: i64, x: &Tensor) -> Tensor;
}

/// Noise from one seed per sample, drawn on the CPU and copied without waiting for the device: a sample does not depend on
/// batch size and device, and equals `torch.Generator("cpu").manual_seed(seed)` in Python.
#[derive(Debug)]
pub struct Seeded(Vec<Generator>);

impl Seeded {
    /// Creates generators for the samples of a batch, one seed each.
    pub fn new(seeds: impl IntoIterator<Item = u64>) -> Self {
        Self(seeds.into_iter().map(Generator::new).collect())
    }

    /// Draws for each sample and concatenates along the batch axis.
    fn each(&mut self, count: i64, draw: impl Fn(&mut Generator) -> Tensor) -> Tensor {
        assert_eq!(count, self.0.len() as i64, "one seed per sample");
        let parts: Vec<Tensor> = self.0.iter_mut().map(draw).collect();
        Tensor::cat(&parts, 0)
    }
}

impl NoiseSource for Seeded {
    fn like(&mut self, x: &Tensor) -> Tensor {
        let mut size = x.size();
        let count = std::mem::replace(&mut size[0], 1);
        // Drawn as f32 for any dtype: a bf16 run starts from the noise of the f32 run.
        let noise = self.each(count, |generator| generator.randn(&size, Kind::Float));
        upload(&noise, x.device()).to_kind(x.kind())
    }

    fn integers(&mut self, high: i64, count: i64, x: &Tensor) -> Tensor {
        upload(&self.each(count, |generator| generator.randint(high, &[1])), x.device())
    }

    fn uniform(&mut self, count: i64, x: &Tensor) -> Tensor {
        upload(&self.each(count, |generator| generator.rand(&[1], Kind::Float)), x.device())
    }
}

/// Spherical interpolation between the samples of `a` and `b` (Shoemake 1985): unlike the mean, an interpolation of two
/// Gaussian noises keeps their norm.
///
/// # Shapes
/// - `a`, `b`: `[B, …]`; `shares`: one per sample, 0 is `a` and 1 is `b`
pub fn slerp(a: &Tensor, b: &Tensor, shares: &[f64]) -> Tensor {
    let batch = a.size()[0];
    assert_eq!(batch, shares.len() as i64, "one share per sample");
    let [x, y] = [a, b].map(|x| x.flatten(1, -1).to_kind(Kind::Double));
    let norm = |x: &Tensor| x.square().sum_dim_intlist(1, true, Kind::Double).sqrt();
    let cosine = (&x * &y).sum_dim_intlist(1, true, Kind::Double) / (norm(&x) * norm(&y));
    let angle = cosine.clamp(-1., 1.).acos(); // [B, 1]
    let share = Tensor::from_slice(shares).to_device(a.device()).view([batch, 1]);
    let sine = angle.sin();
    // Parallel vectors have no unique great circle.
    let flat = sine.lt(1e-6);
    let [of_a, of_b] = [1. - &share, share].map(|share| {
        let spherical = (&share * &angle).sin() / &sine;
        share.where_self(&flat, &spherical)
    });
    (x * of_a + y * of_b).view(a.size().as_slice()).to_kind(a.kind())
}

/// The noise of one training step, seeded from `(seed, rank, step)`, as in EDM2: step *n* of a resumed run has the noise of
/// the uninterrupted run. libtorch's global generators are reseeded too, so dropout is also the same.
///
/// On the CPU it draws from its own generator; on CUDA from the device's, without a copy from the host.
///
/// Ranks that [share](PerStep::shared) a step draw the noise of all its samples, and each takes the part of its own: a
/// sample's noise does not depend on the number of ranks.
#[derive(Debug)]
pub struct PerStep {
    generator: Generator,
    /// This rank, and the number of ranks that share the step.
    part: [i64; 2],
    /// The seed shared by the ranks, and the seed of this rank's dropout.
    seeds: [u64; 2],
    draws: u64,
}

impl PerStep {
    /// The noise of `step` for `rank` alone.
    pub fn new(seed: u64, rank: u64, step: u64) -> Self {
        Self::seeded([0, 1], [mix(seed, &[rank, step]); 2])
    }

    /// The part of `rank` of the noise of a step that `world` ranks share, with batches of equal size.
    ///
    /// # Panics
    /// When `rank` is not below `world`.
    pub fn shared(seed: u64, rank: usize, world: usize, step: u64) -> Self {
        assert!(rank < world, "rank {rank} of {world}");
        Self::seeded([rank as i64, world as i64], [mix(seed, &[0, step]), mix(seed, &[rank as u64, step])])
    }

    fn seeded(part: [i64; 2], seeds: [u64; 2]) -> Self {
        let [shared, own] = seeds;
        ldm_libtorch::set_seed(own);
        Self { generator: Generator::new(shared), part, seeds, draws: 0 }
    }

    /// Draws for the samples of all ranks and returns this rank's part, of shape `size`.
    fn part(
        &mut self,
        size: &[i64],
        x: &Tensor,
        draw: impl FnOnce(&mut Generator, &[i64]) -> Tensor,
    ) -> Tensor {
        let [rank, world] = self.part;
        if world == 1 {
            return draw(&mut self.generator, size);
        }
        let mut all = size.to_vec();
        all[0] *= world;
        // CUDA draws from the global generator, which belongs to this rank's dropout.
        let cuda = x.device().is_cuda();
        self.draws += 1;
        let [shared, own] = self.seeds.map(|seed| mix(seed, &[self.draws]));
        if cuda {
            ldm_libtorch::set_seed(shared);
        }
        let drawn = draw(&mut self.generator, &all);
        if cuda {
            ldm_libtorch::set_seed(own);
        }
        drawn.narrow(0, rank * size[0], size[0])
    }
}

impl NoiseSource for PerStep {
    fn like(&mut self, x: &Tensor) -> Tensor {
        let options = (x.kind(), x.device());
        if x.device().is_cuda() && self.part == [0, 1] {
            return x.randn_like(); // in the memory format of `x`
        }
        self.part(&x.size(), x, |generator, size| {
            if x.device().is_cuda() { Tensor::randn(size, options) } else { generator.randn(size, x.kind()) }
        })
    }

    fn integers(&mut self, high: i64, count: i64, x: &Tensor) -> Tensor {
        self.part(&[count], x, |generator, size| {
            if x.device().is_cuda() {
                Tensor::randint(high, size, (Kind::Int64, x.device()))
            } else {
                generator.randint(high, size)
            }
        })
    }

    fn uniform(&mut self, count: i64, x: &Tensor) -> Tensor {
        self.part(&[count], x, |generator, size| {
            if x.device().is_cuda() {
                Tensor::rand(size, (Kind::Float, x.device()))
            } else {
                generator.rand(size, Kind::Float)
            }
        })
    }
}

/// Recorded draws, replayed in order: tests use CompVis' noise.
#[derive(Debug, Default)]
pub struct Replay(VecDeque<Tensor>);

impl Replay {
    /// Creates a replay of `draws`, first to last.
    pub fn new(draws: impl IntoIterator<Item = Tensor>) -> Self {
        Self(draws.into_iter().collect())
    }

    fn next(&mut self) -> Tensor {
        self.0.pop_front().expect("a recorded draw for every request")
    }
}

impl NoiseSource for Replay {
    fn like(&mut self, x: &Tensor) -> Tensor {
        let draw = self.next();
        assert_eq!(draw.size(), x.size(), "the recorded draw has the requested shape");
        upload(&draw, x.device()).to_kind(x.kind())
    }

    fn integers(&mut self, _high: i64, count: i64, x: &Tensor) -> Tensor {
        let draw = self.next();
        assert_eq!(draw.size(), [count], "the recorded draw has the requested shape");
        upload(&draw, x.device())
    }

    fn uniform(&mut self, count: i64, x: &Tensor) -> Tensor {
        self.integers(0, count, x)
    }
}

/// Mixes several numbers into a 64-bit seed (SplitMix64's finalizer, Steele et al. 2014): nearby inputs give unrelated
/// seeds.
pub fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(finalize(seed), |state, part| finalize(state ^ finalize(*part)))
}

fn finalize(state: u64) -> u64 {
    splitmix_finalizer(state.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// SplitMix64's finalizer: a bijection of 64 bits, so that different states stay different.
pub fn splitmix_finalizer(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let x = Tensor::zeros([4, 3, 8, 8], (Kind::Float, Device::Cpu));
        let all = Seeded::new(10..14).like(&x);
        let one = Seeded::new([12]).like(&x.narrow(0, 0, 1));
        assert_eq!(all.narrow(0, 2, 1), one);
    }

    #[test]
    fn shared_steps_equal_one_rank() {
        let x = |count: i64| Tensor::zeros([count, 3, 2], (Kind::Float, Device::Cpu));
        let draws = |mut noise: PerStep, count| {
            let first = noise.like(&x(count));
            [
                first,
                noise.integers(1000, count, &x(count)),
                noise.uniform(count, &x(count)),
                noise.like(&x(count)),
            ]
        };
        let whole = draws(PerStep::new(7, 0, 3), 6);
        let parts = [0, 1, 2].map(|rank| draws(PerStep::shared(7, rank, 3, 3), 2));
        for (index, whole) in whole.iter().enumerate() {
            let joined = Tensor::cat(&parts.each_ref().map(|part| &part[index]), 0);
            assert_eq!(joined, *whole);
        }
    }

    #[test]
    fn a_step_is_reproducible() {
        let x = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let first = PerStep::new(1, 0, 5).like(&x);
        assert_ne!(first, PerStep::new(1, 0, 6).like(&x));
        assert_ne!(first, PerStep::new(1, 1, 5).like(&x));
        assert_eq!(first, PerStep::new(1, 0, 5).like(&x));
    }
}
