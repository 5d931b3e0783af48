//! Formulas of adversarial training.

use ldm_libtorch::{autocast, differentiable_gradients};
use tch::{Kind, Tensor};

use super::adversarial_config::DiscriminatorLoss;

/// The loss of the discriminator, from its logits for real and for reconstructed images.
///
/// taming-transformers `vqperceptual.py:20` `hinge_d_loss`, `:27` `vanilla_d_loss`.
pub(super) fn discriminator_loss(kind: DiscriminatorLoss, real: &Tensor, fake: &Tensor) -> Tensor {
    let mean = |x: Tensor| x.mean(Kind::Float);
    let (real, fake) = match kind {
        DiscriminatorLoss::Hinge => ((-real + 1.).relu(), (fake + 1.).relu()),
        DiscriminatorLoss::Vanilla => ((-real).softplus(), fake.softplus()),
    };
    (mean(real) + mean(fake)) * 0.5
}

/// The weight that scales the gradient of the adversarial term to the norm of the reconstruction's: a scalar in
/// `[0, 1e4]` without a gradient. Esser et al. 2021, eq. 7; taming-transformers `vqperceptual.py:64`
/// `calculate_adaptive_weight`.
pub(super) fn adaptive_weight(reconstruction: &Tensor, adversarial: &Tensor) -> Tensor {
    (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0., 1e4)
}

/// The R₁ penalty without its weight γ/2: E‖∇ₓ D(x)‖² over real images `x`, where D is the sum over patches. Mescheder
/// et al. 2018, eq. 9.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, which requires a gradient; `logits` are those of `x`
pub(super) fn gradient_penalty(x: &Tensor, logits: &Tensor) -> Tensor {
    let _exact = autocast(x.device(), Kind::Float);
    let total = logits.to_kind(Kind::Float).sum(Kind::Float);
    let gradient = differentiable_gradients(&[&total], &[x]).expect("logits of these images").remove(0);
    gradient.square().sum(Kind::Float) / x.size()[0] as f64
}

/// The LeCam regularization: E‖D(x) − α_F‖² + E‖D(y) − α_R‖², with the EMA α of the logits for the other kind of
/// images. Tseng et al. 2021, eq. 4.
pub(super) fn lecam(real: &Tensor, fake: &Tensor, mean_real: &Tensor, mean_fake: &Tensor) -> Tensor {
    (real - mean_fake).square().mean(Kind::Float) + (fake - mean_real).square().mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn scalar(x: &Tensor) -> f64 {
        x.double_value(&[])
    }

    #[test]
    fn r1_of_a_known_discriminator() {
        // D(x) = Σ w x² on two images of two pixels: ∇D = 2 w x, and ∂‖∇D‖²/∂w = 8 w x².
        let x = Tensor::from_slice(&[1_f32, 2., -3., 0.5]).view([2, 1, 1, 2]).set_requires_grad(true);
        let w = Tensor::from_slice(&[0.5_f32, -1.]).set_requires_grad(true);
        let logits = &w * x.square();
        let penalty = gradient_penalty(&x, &logits);
        // ((1)² + (−4)² + (−3)² + (−1)²) / 2
        assert!((scalar(&penalty) - 13.5).abs() < 1e-5, "{penalty:?}");
        penalty.backward();
        // Σ over images of 8 w x², halved: 4·0.5·(1 + 9), 4·(−1)·(4 + 0.25)
        let grads: Vec<f32> = Vec::try_from(w.grad()).expect("two numbers");
        assert_eq!(grads, [20., -17.]);
    }

    #[test]
    fn lecam_uses_the_mean_of_the_other_kind() {
        let of = |values: &[f32]| Tensor::from_slice(values);
        let got = lecam(&of(&[1., 3.]), &of(&[-2.]), &of(&[0.5]), &of(&[-1.]));
        // ((1+1)² + (3+1)²)/2 + (−2−0.5)²
        assert!((scalar(&got) - (10. + 6.25)).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn the_adaptive_weight_is_clamped() {
        let of = |value: f64| Tensor::full([4], value, (Kind::Float, Device::Cpu));
        assert!((scalar(&adaptive_weight(&of(3.), &of(1.))) - 6. / (2. + 1e-4)).abs() < 1e-5);
        assert_eq!(scalar(&adaptive_weight(&of(3.), &of(0.))), 1e4);
    }
}
