//! Checks of tensors that a user's file gives to an operation, such as latents and noise.

use tch::{Kind, Tensor};

use crate::Checkpoint;
use crate::entry::TensorInfo;
use ldm_core::{Error, Result};

/// The expected size of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Any size except 0, under the letter of messages: `B`, `h`.
    Any(&'static str),
    /// This size.
    Exactly(i64),
}

impl Checkpoint {
    /// Reads the tensor `name` of the shape `axes`: floating-point numbers, none of them NaN or Inf.
    ///
    /// # Errors
    /// [`Error::Format`] as [`Checkpoint::tensor`], and for another shape, an empty axis, another dtype, and the first
    /// number that is not finite.
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> ldm_core::Result<()> {
    /// use ldm_checkpoint::{Axis, Checkpoint};
    /// let axes = [Axis::Any("B"), Axis::Exactly(4), Axis::Any("h"), Axis::Any("w")];
    /// let latents = Checkpoint::open("latents.safetensors")?.floats("latents", &axes)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn floats(&self, name: &str, axes: &[Axis]) -> Result<Tensor> {
        if let Some(info) = self.info(name) {
            let fits = |(axis, size): (&Axis, &i64)| match axis {
                Axis::Any(_) => *size > 0,
                Axis::Exactly(expected) => size == expected,
            };
            if info.shape.len() != axes.len() || !axes.iter().zip(&info.shape).all(fits) {
                let letters: Vec<String> = axes.iter().map(letter).collect();
                let empty = if info.shape.contains(&0) { " without empty axes" } else { "" };
                let expected = format!("shape [{}]{empty}", letters.join(", "));
                return Err(self.unexpected(name, &expected, &format!("{:?}", info.shape)));
            }
        }
        self.finite(name)
    }

    /// Reads the tensor `name` of any shape: floating-point numbers, none of them NaN or Inf.
    ///
    /// # Errors
    /// As [`Checkpoint::floats`].
    pub fn finite(&self, name: &str) -> Result<Tensor> {
        if let Some(TensorInfo { kind, .. }) = self.info(name)
            && !is_float(kind)
        {
            return Err(self.unexpected(name, "floating-point numbers", &format!("{kind:?}")));
        }
        let tensor = self.tensor(name)?;
        // Float8 has no comparisons.
        let wide = if tensor.kind().elt_size_in_bytes() == 1 {
            tensor.to_kind(Kind::Float)
        } else {
            tensor.shallow_clone()
        };
        if wide.isfinite().all().int64_value(&[]) == 0 {
            let place = wide.isfinite().logical_not().nonzero().get(0);
            let place = Vec::<i64>::try_from(&place).expect("one index per axis");
            return Err(self.unexpected(name, "finite numbers", &format!("NaN or Inf at {place:?}")));
        }
        Ok(tensor)
    }

    /// Reads the tensor `name` of one number, with any number of axes.
    ///
    /// # Errors
    /// As [`Checkpoint::floats`]; integers are numbers too.
    pub fn number(&self, name: &str) -> Result<f64> {
        if let Some(TensorInfo { shape, .. }) = self.info(name)
            && shape.iter().any(|size| *size != 1)
        {
            return Err(self.unexpected(name, "one number", &format!("shape {shape:?}")));
        }
        let number = self.tensor(name)?.reshape([1]).to_kind(Kind::Double).double_value(&[0]);
        if number.is_finite() {
            Ok(number)
        } else {
            Err(self.unexpected(name, "a finite number", &number.to_string()))
        }
    }

    fn unexpected(&self, name: &str, expected: &str, got: &str) -> Error {
        let name = name.escape_debug();
        Error::format(&self.path, format!("tensor `{name}`: expected {expected}, got {got}"))
    }
}

fn letter(axis: &Axis) -> String {
    match axis {
        Axis::Any(letter) => (*letter).to_owned(),
        Axis::Exactly(size) => size.to_string(),
    }
}

fn is_float(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Double
            | Kind::Float
            | Kind::Half
            | Kind::BFloat16
            | Kind::Float8e4m3fn
            | Kind::Float8e4m3fnuz
            | Kind::Float8e5m2
            | Kind::Float8e5m2fnuz
    )
}
