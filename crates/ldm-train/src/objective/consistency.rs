//! `train.consistency`: consistency tuning, which makes a diffusion model one of few steps.

use ldm_core::{Error, NoiseSource, Result};
use ldm_data::Batch;
use ldm_pipelines::LatentDiffusionConfig;
use ldm_schedulers::{BatchLevel, NoiseSchedule};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::objective::Loss;
use crate::objective::diffusion::DiffusionObjective;
use crate::objective::prompt_for::prompt_for;

/// `train.consistency`: tunes the diffusion model of `train.init_from` into a consistency model, which predicts the clean
/// sample from any point of its path, so that one to four steps of the sampler `lcm` suffice (ECT, Geng et al. 2024,
/// "Consistency Models Made Easy", arXiv:2406.14548; the names are those of its code).
///
/// Two points of a path have the same clean sample and the same noise, at the noise levels t and r < t (σ/α). The prediction
/// at t learns the one at r, which gets no gradient. The gap between them shrinks in stages.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsistencyConfig {
    /// Stages of equal length in a run. In stage s the gap is a part q^−(s+1) of t, but for the factor of `k` and `b`.
    pub stages: u32,
    /// q, by which a stage divides the gap.
    pub q: f64,
    /// k: at low noise levels the gap is up to 1 + k/2 times as wide.
    pub k: f64,
    /// b: noise levels above 1/b count as high.
    pub b: f64,
    /// Mean of ln t.
    #[serde(rename = "P_mean")]
    pub mean: f64,
    /// Standard deviation of ln t.
    #[serde(rename = "P_std")]
    pub std: f64,
}

impl Default for ConsistencyConfig {
    /// The values of CIFAR-10.
    fn default() -> Self {
        Self { stages: 8, q: 2., k: 8., b: 1., mean: -1.1, std: 2. }
    }
}

impl ConsistencyConfig {
    /// Checks the values. The message of an error begins with the key.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let Self { stages, q, k, b, mean, std } = *self;
        if stages == 0 {
            return Err("stages: expected at least 1, got 0".into());
        }
        if !(q.is_finite() && q > 1.) {
            return Err(format!("q: expected more than 1, got {q}"));
        }
        for (key, value) in [("k", k), ("b", b), ("P_std", std)] {
            if !(value.is_finite() && value >= 0.) {
                return Err(format!("{key}: expected at least 0, got {value}"));
            }
        }
        if !mean.is_finite() {
            return Err(format!("P_mean: expected a number, got {mean}"));
        }
        Ok(())
    }

    /// The stage of a step.
    pub(crate) fn stage(&self, step: u64, steps: u64) -> u32 {
        let stage = step.saturating_mul(u64::from(self.stages)) / steps.max(1);
        u32::try_from(stage).unwrap_or(u32::MAX).min(self.stages - 1)
    }

    /// r of each t (`t_to_r_sigmoid` of ECT's code), at least 0.
    pub(crate) fn earlier(&self, t: &Tensor, stage: u32) -> Tensor {
        let gap = self.q.powi(-i32::try_from(stage + 1).unwrap_or(i32::MAX));
        let wider: Tensor = (t * -self.b).sigmoid() * self.k + 1.;
        (t * (wider * -gap + 1.)).clamp_min(0.)
    }
}

/// The noise levels and the loss of consistency tuning.
#[derive(Debug)]
pub(crate) struct Consistency {
    config: ConsistencyConfig,
    /// Steps of the run.
    steps: u64,
    /// ln(σ/α) of each timestep, `[T]` f32, rising.
    levels: Tensor,
}

/// Noise levels of a batch between timesteps.
#[derive(Debug)]
pub(crate) struct Between {
    /// σ/α, `[B, 1, 1, 1]`.
    ratio: Tensor,
    /// The interpolated timestep, `[B]` f32.
    pub(crate) t: Tensor,
    /// α and σ.
    pub(crate) level: BatchLevel,
}

impl Consistency {
    /// # Errors
    /// [`Error::Invalid`] for a model that has no noise level for the predictions to agree at, or a loss of another kind.
    pub(crate) fn new(
        config: ConsistencyConfig,
        steps: u64,
        model: &LatentDiffusionConfig,
        schedule: &NoiseSchedule,
        device: Device,
    ) -> Result<Self> {
        config.check().map_err(|message| Error::invalid(format!("train.consistency.{message}")))?;
        let refuse = |key: &str, expected: &str, got: String| {
            Err(Error::invalid(format!("{key}: expected {expected} with train.consistency, got {got}")))
        };
        if model.unet().dropout != 0. {
            // The two passes would drop different values.
            return refuse("model.params.unet_config.params.dropout", "0", model.unet().dropout.to_string());
        }
        if model.original_elbo_weight != 0. || model.learn_logvar {
            return refuse(
                "model.params",
                "no original_elbo_weight and no learn_logvar",
                "one of them".into(),
            );
        }
        let ratios: Vec<f64> =
            (0..schedule.timesteps()).map(|t| schedule.level(t).noise_to_signal().ln()).collect();
        if ratios.iter().any(|ratio| !ratio.is_finite()) {
            return refuse("the noise schedule", "no level of pure noise", "one".into());
        }
        let levels = Tensor::from_slice(&ratios).to_kind(Kind::Float).to_device(device);
        Ok(Self { config, steps, levels })
    }

    /// Draws t for each sample of `z` `[B, C, h, w]`, and returns its noise level and that of r at `step`. r is 0, the clean
    /// sample, below the lowest level of the schedule.
    pub(crate) fn draw(&self, z: &Tensor, step: u64, noise: &mut dyn NoiseSource) -> [Between; 2] {
        let one = z.narrow(1, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).to_kind(Kind::Float);
        let normal = noise.like(&one); // [B, 1, 1, 1]
        let [low, high] = [self.levels.get(0), self.levels.get(-1)];
        let t = (normal * self.config.std + self.config.mean).maximum(&low).minimum(&high).exp();
        let r = self.config.earlier(&t, self.config.stage(step, self.steps));
        let r = r.where_self(&r.ge_tensor(&low.exp()), &r.zeros_like());
        [self.between(t), self.between(r)]
    }

    /// The levels with σ/α = `ratio`: timesteps interpolated in ln(σ/α), as in k-diffusion's `sigma_to_t`.
    fn between(&self, ratio: Tensor) -> Between {
        let ln = ratio.log().flatten(0, -1).contiguous(); // −∞ without noise
        let last = self.levels.size()[0] - 1;
        let above = ln.searchsorted(&self.levels, false, false, "left", None::<Tensor>).clamp(1, last);
        let [low, high] = [self.levels.index_select(0, &(&above - 1)), self.levels.index_select(0, &above)];
        let part = ((ln - &low) / (high - &low)).clamp(0., 1.);
        let t = above.to_kind(Kind::Float) - 1. + part;
        let norm = (ratio.square() + 1.).sqrt();
        let level = BatchLevel { alpha: norm.reciprocal(), sigma: &ratio / norm };
        Between { ratio, t, level }
    }
}

impl Between {
    /// The loss of predictions at this level t against those at r, `[B]`: the root of the mean square difference, weighted
    /// by 1/t² + 1, for latents of deviation 1 (ECT's 1/t² + 1/σ_data²).
    fn errors(&self, at_t: &Tensor, at_r: &Tensor) -> Tensor {
        let square = (at_t - at_r).square().mean_dim([1, 2, 3].as_slice(), false, Kind::Float);
        // A root of zero has no gradient.
        let root = (square + 1e-12).sqrt();
        let weight = self.ratio.flatten(0, -1).square().reciprocal() + 1.;
        root * weight
    }

    /// `[B]` whole timesteps, for conditions that are noised too.
    pub(crate) fn timesteps(&self) -> Tensor {
        self.t.round().to_kind(Kind::Int64)
    }

    /// x0 where there is no noise, else `prediction`.
    pub(crate) fn or_clean(&self, prediction: &Tensor, x0: &Tensor) -> Tensor {
        prediction.where_self(&self.ratio.gt(0.), x0)
    }
}

impl DiffusionObjective {
    /// The predictions of x_0 at two points of the same path learn to agree.
    pub(super) fn consistency_loss(
        &self,
        consistency: &Consistency,
        step: u64,
        z: &Tensor,
        batch: &Batch,
        noise: &mut dyn NoiseSource,
    ) -> Result<Loss> {
        let model = self.model();
        let [late, early] = consistency.draw(z, step, noise);
        let eps = self.noise(z, noise);
        let prompt = self.dropout.apply(&*model.conditioner, prompt_for(model, batch)?, noise)?;
        let cond = model.noise_condition(model.condition(&prompt, true)?, &late.timesteps(), noise);
        let predict = |at: &Between, train: bool| {
            let noisy = at.level.mix(z, &eps);
            let output = model.unet.forward(&noisy, &at.t, &cond, train);
            model.parameterization.to_x0(&output.to_kind(Kind::Float), &noisy, &at.level)
        };
        let target = tch::no_grad(|| early.or_clean(&predict(&early, false), z));
        let each = late.errors(&predict(&late, true), &target);
        let total = each.mean(Kind::Float);
        let parts = vec![("loss_consistency", total.detach()), ("loss", total.detach())];
        Ok(Loss { total, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: [f64; 4] = [0.1, 0.5, 2., 20.];

    #[test]
    fn r_is_that_of_the_reference() {
        // ECT's `t_to_r_sigmoid` with q = 2, k = 8 and b = 1 in PyTorch 2.11, f64.
        for (stage, expected) in [
            (0, [0., 0., 0.046_376_623_823_1, 9.999_999_835_11]),
            (3, [0.069_998_959_373_9, 0.374_364_832_8, 1.755_797_077_98, 18.749_999_979_4]),
            (7, [0.098_124_934_960_9, 0.492_147_802_05, 1.984_737_317_37, 19.921_874_998_7]),
        ] {
            let r = ConsistencyConfig::default().earlier(&Tensor::from_slice(&T), stage);
            let error = (r - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
            assert!(error < 1e-10, "stage {stage}: {error:e}");
        }
    }

    #[test]
    fn stages_have_equal_lengths() {
        let config = ConsistencyConfig { stages: 4, ..ConsistencyConfig::default() };
        let stages = [0, 24, 25, 50, 99, 100, 5000].map(|step| config.stage(step, 100));
        assert_eq!(stages, [0, 0, 1, 2, 3, 3, 3]);
    }

    fn tuning() -> Consistency {
        let levels = Tensor::from_slice(&[-3_f32, -1., 0., 2.]);
        Consistency { config: ConsistencyConfig::default(), steps: 80, levels }
    }

    #[test]
    fn levels_between_timesteps_are_interpolated_in_the_logarithm() {
        let ratio = Tensor::from_slice(&[-3_f32, -2., -1., 1., 2.]).exp().view([5, 1, 1, 1]);
        let between = tuning().between(ratio.shallow_clone());
        let t = Vec::<f32>::try_from(&between.t).unwrap();
        assert!(
            t.iter().zip([0., 0.5, 1., 2.5, 3.]).all(|(t, expected)| (t - expected).abs() < 1e-6),
            "{t:?}"
        );
        let square = between.level.alpha.square() + between.level.sigma.square();
        assert!(square.allclose(&square.ones_like(), 1e-6, 1e-6, false));
        assert!((&between.level.sigma / &between.level.alpha).allclose(&ratio, 1e-6, 1e-6, false));
        let clean = tuning().between(Tensor::zeros([1, 1, 1, 1], (Kind::Float, Device::Cpu)));
        assert_eq!([clean.t.double_value(&[0]), clean.level.alpha.double_value(&[0, 0, 0, 0])], [0., 1.]);
    }

    #[test]
    fn r_is_below_t_and_nears_it() {
        let z = Tensor::zeros([64, 4, 2, 2], (Kind::Float, Device::Cpu));
        let mut gaps = Vec::new();
        for step in [0, 40, 79] {
            let mut noise = ldm_core::noise::PerStep::new(1, 0, 5);
            let [t, r] = tuning().draw(&z, step, &mut noise);
            assert!((&r.ratio - &t.ratio).max().double_value(&[]) < 0., "step {step}");
            let lowest = r.ratio.masked_select(&r.ratio.gt(0.)).min().double_value(&[]);
            assert!(lowest >= (-3_f64).exp() - 1e-6, "step {step}: {lowest}");
            gaps.push(((&t.ratio - &r.ratio) / &t.ratio).mean(Kind::Double).double_value(&[]));
        }
        assert!(gaps[0] > gaps[1] && gaps[1] > gaps[2], "{gaps:?}");
    }

    #[test]
    fn equal_predictions_have_no_loss_and_a_finite_gradient() {
        let z = Tensor::ones([2, 4, 2, 2], (Kind::Float, Device::Cpu));
        let at = tuning().between(Tensor::from_slice(&[0.5_f32, 1.]).view([2, 1, 1, 1]));
        let prediction = z.copy().set_requires_grad(true);
        let loss = at.errors(&prediction, &z);
        assert!(loss.abs().max().double_value(&[]) < 1e-5);
        loss.sum(Kind::Float).backward();
        assert_eq!(prediction.grad().abs().max().double_value(&[]), 0.);
        // A difference of d everywhere: d (1/t² + 1).
        let loss = Vec::<f32>::try_from(at.errors(&(&z + 0.5), &z)).unwrap();
        assert!((loss[0] - 2.5).abs() < 1e-5 && (loss[1] - 1.).abs() < 1e-5, "{loss:?}");
    }
}
