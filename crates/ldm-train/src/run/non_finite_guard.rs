//! Steps with NaN or Inf gradients.

use tch::{Device, Kind, Tensor};

/// Counts the steps that were skipped because a gradient was NaN or Inf ([`crate::found_inf`]). The counts stay on the
/// device, so that no step synchronizes with the host.
#[derive(Debug)]
pub(crate) struct NonFiniteGuard {
    in_a_row: Tensor,
    skipped: Tensor,
}

impl NonFiniteGuard {
    /// A guard that continues from `skipped` skipped steps.
    pub(crate) fn new(skipped: u64, device: Device) -> Self {
        let scalar = |value: i64| Tensor::full([], value, (Kind::Int64, device));
        Self { in_a_row: scalar(0), skipped: scalar(skipped as i64) }
    }

    /// Records a step; `found_inf` is an f32 scalar, above 0 where the step was skipped.
    pub(crate) fn record(&mut self, found_inf: &Tensor) {
        let skipped = found_inf.gt(0.).to_kind(Kind::Int64);
        self.in_a_row = (&self.in_a_row + 1) * &skipped;
        self.skipped += skipped;
    }

    /// The number of steps skipped in a row up to now, and in total. Synchronizes with the device.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.in_a_row.int64_value(&[]) as u64, self.skipped.int64_value(&[]) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finite_step_resets_the_row_but_not_the_total() {
        let mut guard = NonFiniteGuard::new(5, Device::Cpu);
        for found_inf in [0., 1., 2., 0., 1., 1., 1.] {
            guard.record(&Tensor::from(found_inf as f32));
        }
        assert_eq!(guard.read(), (3, 10));
    }
}
