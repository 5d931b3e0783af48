//! Means between two lines of the log.

use std::collections::BTreeMap;

use ldm_core::device::peak_memory;
use ldm_core::json::number;
use ldm_core::upload;
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
    /// By the names of a step's scalars, `[2, n]` f32: the sums of the finite values, and their counts.
    sums: BTreeMap<Vec<String>, Tensor>,
    /// Images of this rank.
    pub(crate) images: u64,
    /// Seconds spent waiting for data.
    pub(crate) waited: f64,
}

impl Meter {
    /// Adds the scalars of a step, in a few operations for all of them; NaN and Inf, of skipped steps, are ignored.
    pub(crate) fn add(&mut self, scalars: Vec<(String, Tensor)>) {
        let Some(device) = scalars.first().map(|(_, value)| value.device()) else { return };
        let (names, values): (Vec<String>, Vec<Tensor>) = scalars.into_iter().unzip();
        let on_device = |value: Tensor| upload(&value.to_kind(Kind::Float), device);
        let values = Tensor::stack(&values.into_iter().map(on_device).collect::<Vec<_>>(), 0); // [n]
        let counts = values.isfinite().to_kind(Kind::Float);
        let step = Tensor::stack(&[values.nan_to_num(0., 0., 0.), counts], 0); // [2, n]
        match self.sums.get_mut(&names) {
            Some(sums) => *sums += step,
            None => {
                self.sums.insert(names, step);
            }
        }
    }

    /// The sum of the finite values and their count, by name. Synchronizes with the device.
    fn totals(&self) -> BTreeMap<&str, [f32; 2]> {
        let mut totals: BTreeMap<&str, [f32; 2]> = BTreeMap::new();
        for (names, sums) in &self.sums {
            let sums = Vec::<f32>::try_from(sums.flatten(0, -1)).expect("a list of f32");
            let (values, counts) = sums.split_at(names.len());
            // A name comes once for each micro-batch.
            for ((name, value), count) in names.iter().zip(values).zip(counts) {
                let total = totals.entry(name).or_default();
                *total = [total[0] + value, total[1] + count];
            }
        }
        totals
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
            .totals()
            .into_iter()
            .map(|(name, [sum, count])| (name.to_owned(), f64::from(sum / count)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_the_finite_values_of_each_name() {
        let scalar = |name: &str, value: f64| (name.to_owned(), Tensor::from(value as f32));
        let mut meter = Meter::default();
        meter.add(vec![scalar("loss", 1.), scalar("norm", 4.), scalar("loss", 2.), scalar("norm", 8.)]);
        meter.add(vec![
            scalar("loss", f64::NAN),
            scalar("norm", f64::INFINITY),
            scalar("loss", 6.),
            scalar("norm", 3.),
        ]);
        // A step with other scalars, one of them of another dtype, and one with none.
        meter.add(vec![scalar("loss", 7.), ("r1".into(), Tensor::from(0.5_f64)), scalar("never", f64::NAN)]);
        meter.add(Vec::new());
        meter.images = 6;
        let line = meter.take(2., 0.1, &TrainState::default(), Device::Cpu);
        assert_eq!([line["loss"], line["norm"], line["r1"]], [4., 5., 0.5]);
        assert!(line["never"].is_nan());
        assert_eq!(line["images_per_second"], 3.);
        let next = meter.take(2., 0.1, &TrainState::default(), Device::Cpu);
        assert!(!next.contains_key("loss"), "the meter is empty again");
    }
}
