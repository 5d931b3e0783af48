//! Steps whose gradients are no numbers.

use tch::{Device, Kind, Tensor};

/// Counts the steps that were left out because a gradient was infinite or no number ([`crate::found_inf`]). It lives on
/// the device: no step waits for the host to learn whether it was taken.
#[derive(Debug)]
pub(crate) struct NonFiniteGuard {
    in_a_row: Tensor,
    skipped: Tensor,
}

impl NonFiniteGuard {
    /// A guard that has seen `skipped` steps left out.
    pub(crate) fn new(skipped: u64, device: Device) -> Self {
        let scalar = |value: i64| Tensor::full([], value, (Kind::Int64, device));
        Self { in_a_row: scalar(0), skipped: scalar(skipped as i64) }
    }

    /// Once a step; `overflow` is an f32 scalar, above 0 where the step was left out.
    pub(crate) fn saw(&mut self, overflow: &Tensor) {
        let out = overflow.gt(0.).to_kind(Kind::Int64);
        self.in_a_row = (&self.in_a_row + 1) * &out;
        self.skipped += out;
    }

    /// How many steps were left out in a row up to now, and how many in all. Waits for the device.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.in_a_row.int64_value(&[]) as u64, self.skipped.int64_value(&[]) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_step_ends_a_row_and_not_the_count() {
        let mut guard = NonFiniteGuard::new(5, Device::Cpu);
        for overflow in [0., 1., 2., 0., 1., 1., 1.] {
            guard.saw(&Tensor::from(overflow as f32));
        }
        assert_eq!(guard.read(), (3, 10));
    }
}
