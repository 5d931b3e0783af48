//! Means between two lines of the log.

use std::collections::BTreeMap;

use ldm_core::device::peak_memory;
use ldm_core::json::number;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::run::state::TrainState;

/// A line as JSON; steps and counts are written as integers, NaN and Inf by their names ([`number`]).
pub(crate) fn to_json(line: &BTreeMap<String, f64>) -> serde_json::Value {
    let entry = |(name, value): (&String, &f64)| {
        let whole = matches!(name.as_str(), "step" | "images" | "peak_memory" | "skipped");
        (name.clone(), if whole { json!(*value as u64) } else { number(*value) })
    };
    serde_json::Value::Object(line.iter().map(entry).collect())
}

/// Sums since the last line of the log, on the device.
#[derive(Default)]
pub(crate) struct Meter {
    /// The sum of the finite values by name, and their count.
    sums: BTreeMap<String, (Tensor, Tensor)>,
    /// Images of this rank.
    pub(crate) images: u64,
    /// Seconds spent waiting for data.
    pub(crate) waited: f64,
}

impl Meter {
    /// Adds a scalar of this step; NaN and Inf, of skipped steps, are ignored.
    pub(crate) fn add(&mut self, name: &str, value: &Tensor) {
        let value = value.to_kind(Kind::Float);
        let count = value.isfinite().to_kind(Kind::Float);
        let value = value.nan_to_num(0., 0., 0.);
        match self.sums.get_mut(name) {
            Some((sum, counts)) => {
                *sum += value;
                *counts += count;
            }
            None => {
                self.sums.insert(name.to_owned(), (value, count));
            }
        }
    }

    /// Returns the means and resets the meter; a mean is NaN if no value was finite.
    pub(crate) fn take(
        &mut self,
        seconds: f64,
        lr: f64,
        state: &TrainState,
        device: Device,
    ) -> BTreeMap<String, f64> {
        let taken = std::mem::take(self);
        let mut line: BTreeMap<String, f64> = taken
            .sums
            .iter()
            .map(|(name, (sum, count))| (name.clone(), (sum / count).double_value(&[])))
            .collect();
        line.insert("step".into(), state.step as f64);
        line.insert("images".into(), state.images as f64);
        line.insert("skipped".into(), state.skipped as f64);
        line.insert("seconds".into(), state.seconds);
        line.insert("lr".into(), lr);
        line.insert("images_per_second".into(), taken.images as f64 / seconds.max(1e-9));
        line.insert("data_wait".into(), taken.waited / seconds.max(1e-9));
        line.insert("peak_memory".into(), peak_memory(device) as f64);
        line
    }
}
