//! Normalization layers of the discriminator.

use std::cell::Cell;

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Batch normalization or ActNorm.
#[derive(Debug)]
pub(super) enum DiscriminatorNorm {
    Batch(BatchNorm),
    Act(ActNorm),
}

impl DiscriminatorNorm {
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Batch(norm) => norm.forward(x),
            Self::Act(norm) => norm.forward(x),
        }
    }

    pub(super) fn loaded(&self) {
        if let Self::Act(norm) = self {
            norm.checked.set(false);
        }
    }
}

/// Batch normalization in training (Ioffe & Szegedy 2015), with PyTorch's parameter names.
///
/// Always normalizes by the batch: a discriminator is used only in training. The running statistics exist because
/// CompVis checkpoints have them; every pass updates them, real, fake, and the generator's, as in CompVis.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm {
    /// Weights from N(1, 0.02). taming-transformers `discriminator/model.py:8` `weights_init`.
    pub(super) fn new(vs: &Path, channels: i64) -> Self {
        let counter = Tensor::zeros([], (Kind::Int64, vs.device()));
        Self {
            weight: vs.var("weight", &[channels], Init::Randn { mean: 1., stdev: 0.02 }),
            bias: vs.zeros("bias", &[channels]),
            running_mean: vs.zeros_no_train("running_mean", &[channels]),
            running_var: vs.ones_no_train("running_var", &[channels]),
            num_batches_tracked: vs.add("num_batches_tracked", counter, false),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut counter = self.num_batches_tracked.shallow_clone();
        counter += 1;
        let [weight, bias, mean, var] = [&self.weight, &self.bias, &self.running_mean, &self.running_var];
        // Statistics are f32, also under autocast.
        let x = x.to_kind(Kind::Float);
        x.batch_norm(Some(weight), Some(bias), Some(mean), Some(var), true, 0.1, 1e-5, true)
    }
}

/// A per-channel affine map, initialized to normalize the first batch (Kingma & Dhariwal 2018, §3.1).
///
/// taming-transformers `util.py:9` `ActNorm`.
#[derive(Debug)]
pub(super) struct ActNorm {
    /// `[1, C, 1, 1]`, like `scale`.
    loc: Tensor,
    scale: Tensor,
    /// u8: 1 after the first batch.
    initialized: Tensor,
    /// True once `initialized` was read; later steps do not synchronize with the device.
    checked: Cell<bool>,
}

impl ActNorm {
    pub(super) fn new(vs: &Path, channels: i64) -> Self {
        let flag = Tensor::zeros([], (Kind::Uint8, vs.device()));
        Self {
            loc: vs.zeros("loc", &[1, channels, 1, 1]),
            scale: vs.ones("scale", &[1, channels, 1, 1]),
            initialized: vs.add("initialized", flag, false),
            checked: Cell::new(false),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        if !self.checked.get() {
            if self.initialized.int64_value(&[]) == 0 {
                tch::no_grad(|| self.initialize(&x));
            }
            self.checked.set(true);
        }
        (&x + &self.loc) * &self.scale
    }

    fn initialize(&self, x: &Tensor) {
        let dims = [0, 2, 3];
        let (std, mean) = x.std_mean_dim(dims.as_slice(), true, true); // unbiased
        self.loc.shallow_clone().copy_(&-mean);
        self.scale.shallow_clone().copy_(&(std + 1e-6).reciprocal());
        let _ = self.initialized.shallow_clone().fill_(1);
    }
}
