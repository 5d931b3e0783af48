//! Noise schedules.

use std::sync::{Mutex, PoisonError};

use ldm_core::Result;
use tch::{Device, Tensor};

use crate::noise_level::compute_kind;
use crate::{BatchLevel, ForwardPosterior, NoiseLevel, ScheduleConfig};

/// β and ᾱ of the `T` training timesteps, in f64.
#[derive(Debug)]
pub struct NoiseSchedule {
    pub(crate) betas: Vec<f64>,
    pub(crate) alphas_bar: Vec<f64>,
    v_posterior: f64,
    /// A cache of `[2, T]` f64, α over σ, for each device: training reads them without a copy from the host.
    tables: Mutex<Vec<(Device, Tensor)>>,
}

impl NoiseSchedule {
    /// The schedule a config describes.
    ///
    /// # Errors
    /// When there are fewer than two timesteps, when `given_betas` has another length, when a β is not in `(0, 1)`,
    /// and when `v_posterior` is not in `[0, 1]`.
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        let betas = config.betas()?;
        let alphas_bar = betas
            .iter()
            .scan(1., |product, beta| {
                *product *= 1. - beta;
                Some(*product)
            })
            .collect();
        Ok(Self { betas, alphas_bar, v_posterior: config.v_posterior, tables: Mutex::default() })
    }

    /// `T`, the number of timesteps.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
    }

    /// Fraction of β in the variance of the reverse step.
    pub fn v_posterior(&self) -> f64 {
        self.v_posterior
    }

    /// The noise level of timestep `t`.
    ///
    /// # Panics
    /// When `t` is not in `0..T`.
    pub fn level(&self, t: usize) -> NoiseLevel {
        NoiseLevel::from_alpha_bar(t, self.alphas_bar[t])
    }

    /// ᾱ_{t−1}; 1 for the first timestep.
    pub(crate) fn alpha_bar_prev(&self, t: usize) -> f64 {
        if t == 0 { 1. } else { self.alphas_bar[t - 1] }
    }

    /// q(x_{t−1} | x_t, x_0).
    ///
    /// # Panics
    /// When `t` is not in `0..T`.
    pub fn posterior(&self, t: usize) -> ForwardPosterior {
        ForwardPosterior::new(self.betas[t], self.alphas_bar[t], self.alpha_bar_prev(t), self.v_posterior)
    }

    /// The noise levels of the timesteps `t`, for samples like `x`; without waiting for the device.
    ///
    /// # Shapes
    /// - `t`: `[B]` i64 in `0..T`, on the device of `x`; `x`: `[B, …]`
    /// - returns α and σ as `[B, 1, …]`
    pub fn levels(&self, t: &Tensor, x: &Tensor) -> BatchLevel {
        let mut size = vec![1; x.dim()];
        size[0] = -1;
        let picked = self.table(x.device()).index_select(1, t).to_kind(compute_kind(x)); // [2, B]
        BatchLevel { alpha: picked.get(0).view(size.as_slice()), sigma: picked.get(1).view(size.as_slice()) }
    }

    /// Adds noise to clean samples: the closed form of the forward process.
    ///
    /// # Shapes
    /// - `x0`, `eps`: `[B, C, h, w]`; `t`: `[B]` i64 in `0..T`, on the device of `x0`
    /// - returns `[B, C, h, w]`, dtype of `x0`
    ///
    /// Ho et al. 2020, eq. 4. CompVis `ddpm.py:274` `q_sample`.
    pub fn add_noise(&self, x0: &Tensor, eps: &Tensor, t: &Tensor) -> Tensor {
        self.levels(t, x0).mix(x0, eps)
    }

    fn table(&self, device: Device) -> Tensor {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = tables.iter().find(|(at, _)| *at == device) {
            return table.shallow_clone();
        }
        let levels: Vec<NoiseLevel> = (0..self.timesteps()).map(|t| self.level(t)).collect();
        let rows: Vec<f64> =
            levels.iter().map(|at| at.alpha).chain(levels.iter().map(|at| at.sigma)).collect();
        let table = Tensor::from_slice(&rows).view([2, -1]).to_device(device);
        tables.push((device, table.shallow_clone()));
        table
    }
}
