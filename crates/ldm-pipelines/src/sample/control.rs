//! Control of samples by ControlNets.

use std::fmt;

use ldm_core::{Conditioning, Error, Result, Tile};
use ldm_schedulers::NoiseLevel;
use ldm_unet::{ConditioningCache, ControlNet, ControlResiduals};
use tch::{Kind, Tensor};

use crate::{ControlNetModel, LatentDiffusion};

/// A ControlNet with a hint image, which steers every image of a request. Several add up.
pub struct Control<'a> {
    net: &'a ControlNetModel,
    hint: Box<dyn Fn([i64; 2]) -> Result<Tensor> + 'a>,
    scale: f64,
    interval: [f64; 2],
    image_name: Option<String>,
}

impl<'a> Control<'a> {
    /// Steers by `net` at scale 1 in every step. `hint` returns the hint image at the size `[H, W]` of the images.
    ///
    /// # Shapes
    /// - `hint` returns `[1, C, H, W]` in `[0, 1]`, of the channels that the network takes, in the order RGB
    pub fn new(net: &'a ControlNetModel, hint: impl Fn([i64; 2]) -> Result<Tensor> + 'a) -> Self {
        Self { net, hint: Box::new(hint), scale: 1., interval: [0., 1.], image_name: None }
    }

    /// Multiplies the residuals by `scale`; 0 is no control. diffusers' `controlnet_conditioning_scale`.
    #[must_use]
    pub fn scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Steers only the steps between the fractions `start` and `end` of a run: of n steps, step i (from 0) if
    /// start ≤ i/n and (i + 1)/n ≤ end. diffusers' `control_guidance_start` and `control_guidance_end`.
    #[must_use]
    pub fn interval(self, start: f64, end: f64) -> Self {
        Self { interval: [start, end], ..self }
    }

    /// Names the file of the hint image in `parameters`.
    #[must_use]
    pub fn image_name(self, name: impl Into<String>) -> Self {
        Self { image_name: Some(name.into()), ..self }
    }

    /// Encodes the hint for images of `latent` `[h, w]`, in a run over `levels`.
    fn prepare(
        &self,
        model: &LatentDiffusion,
        latent: [i64; 2],
        levels: &[NoiseLevel],
    ) -> Result<PreparedControl<'a>> {
        let network = self.net.network();
        if !self.scale.is_finite() {
            return Err(Error::expected("control scale", "a finite number", self.scale));
        }
        let levels = steered(self.interval, levels)?;
        let size = latent.map(|side| side * model.first_stage.factor());
        let hint = (self.hint)(size)?;
        let expected = [1, network.config().hint_channels, size[0], size[1]];
        if hint.size() != expected {
            let (what, expected) = ("the hint".into(), format!("{expected:?}"));
            return Err(Error::Shape { what, expected, got: hint.size() });
        }
        let hint = network.encode_hint(&hint.to_device(model.vs().device()));
        Ok(PreparedControl { network, hint, scale: self.scale, levels })
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("net", &self.net.name)
            .field("scale", &self.scale)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// As in the `parameters` of AUTOMATIC1111's extension for ControlNets, which quotes them.
impl fmt::Display for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { net, scale, interval: [start, end], image_name, .. } = self;
        write!(f, "Module: none, Model: {}, Weight: {scale}", net.name)?;
        write!(f, ", Guidance Start: {start}, Guidance End: {end}")?;
        image_name.iter().try_for_each(|name| write!(f, ", Image: {name}"))
    }
}

/// The σ/α of the steps of a run in `interval`: below or at the first, and above the second.
fn steered([start, end]: [f64; 2], levels: &[NoiseLevel]) -> Result<[f64; 2]> {
    if !(0. ..=1.).contains(&start) || !(0. ..=1.).contains(&end) || start >= end {
        return Err(Error::invalid(format!(
            "control start and end: expected fractions of the steps with 0 <= start < end <= 1, got {start} and {end}"
        )));
    }
    let count = levels.len() - 1;
    let share = |step: usize| step as f64 / count as f64;
    let mut steps = (0..count).filter(|step| share(*step) >= start && share(*step + 1) <= end);
    let Some(first) = steps.next() else {
        if count == 0 {
            return Ok([0., 0.]);
        }
        return Err(Error::invalid(format!(
            "control start and end: expected an interval that contains a whole step of {count}, got {start} to {end}"
        )));
    };
    let last = steps.next_back().unwrap_or(first);
    // Solvers evaluate the network within a step too.
    let above = if first == 0 { f64::INFINITY } else { levels[first].noise_to_signal() };
    let below = if last + 1 == count { -1. } else { levels[last + 1].noise_to_signal() };
    Ok([above, below])
}

/// A control of a run.
#[derive(Debug)]
pub(crate) struct PreparedControl<'a> {
    network: &'a ControlNet,
    /// The encoded hint, `[1, model_channels, h, w]`.
    hint: Tensor,
    scale: f64,
    /// As of [`steered`].
    levels: [f64; 2],
}

impl<'a> PreparedControl<'a> {
    /// Encodes the hints of `controls` for images of `latent` `[h, w]`, in a run over `levels`.
    pub(crate) fn all(
        controls: &[Control<'a>],
        model: &LatentDiffusion,
        latent: [i64; 2],
        levels: &[NoiseLevel],
    ) -> Result<Vec<Self>> {
        tch::no_grad(|| controls.iter().map(|control| control.prepare(model, latent, levels)).collect())
    }

    pub(crate) fn precompute(&self, cond: &Conditioning) -> ConditioningCache {
        self.network.precompute(cond)
    }

    /// The residuals at a level, or at a tile of the sample; none at levels that it does not steer.
    pub(crate) fn residuals(
        &self,
        x: &Tensor,
        at: NoiseLevel,
        cond: &ConditioningCache,
        tile: Option<Tile>,
    ) -> Option<ControlResiduals> {
        let [above, below] = self.levels;
        let ratio = at.noise_to_signal();
        if self.scale == 0. || ratio > above || ratio <= below {
            return None;
        }
        let hint = tile.map_or_else(|| self.hint.shallow_clone(), |tile| tile.of(&self.hint));
        let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
        Some(self.network.forward(x, &t, cond, &hint).scaled(self.scale))
    }
}

/// Checks the files of the weights of `controls`.
pub(crate) fn check_files(controls: &[Control]) -> Result<()> {
    controls.iter().try_for_each(|control| control.net.check_files())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steered_steps_are_those_of_diffusers() {
        let level = |sigma: f64| NoiseLevel { t: 0., alpha: 1., sigma };
        let levels = [5., 4., 3., 2., 1., 0.].map(level);
        // `1.0 - float(i / n < start or (i + 1) / n > end)` of its pipeline.
        let steps = |start: f64, end: f64| {
            let [above, below] = steered([start, end], &levels).unwrap();
            let at = |ratio: &f64| *ratio <= above && *ratio > below;
            [5., 4., 3., 2., 1.].iter().filter(|ratio| at(ratio)).copied().collect::<Vec<_>>()
        };
        assert_eq!(steps(0., 1.), [5., 4., 3., 2., 1.]);
        assert_eq!(steps(0.2, 0.6), [4., 3.]);
        assert_eq!(steps(0.21, 0.99), [3., 2.]);
        assert_eq!(steps(0.8, 1.), [1.]);
        let refused = |start, end| steered([start, end], &levels).unwrap_err().to_string();
        assert_eq!(
            refused(0.3, 0.5),
            "control start and end: expected an interval that contains a whole step of 5, got 0.3 to 0.5"
        );
        assert!(refused(0.5, 0.5).contains("0 <= start < end <= 1, got 0.5 and 0.5"));
        assert!(refused(f64::NAN, 1.).contains("got NaN and 1"));
        assert!(steered([0.3, 0.5], &levels[5..]).is_ok(), "no step at all");
    }
}
