//! Formulas of adversarial training.

use ldm_libtorch::{autocast, differentiable_gradients};
use tch::{Kind, Tensor};

use super::adversarial_config::CriticLoss;

/// What the discriminator minimizes, from its answers to real and to made images.
///
/// taming-transformers `vqperceptual.py:20` `hinge_d_loss`, `:27` `vanilla_d_loss`.
pub(super) fn discriminator_loss(kind: CriticLoss, real: &Tensor, fake: &Tensor) -> Tensor {
    let mean = |x: Tensor| x.mean(Kind::Float);
    let (real, fake) = match kind {
        CriticLoss::Hinge => ((-real + 1.).relu(), (fake + 1.).relu()),
        CriticLoss::Vanilla => ((-real).softplus(), fake.softplus()),
    };
    (mean(real) + mean(fake)) * 0.5
}

/// How strong the adversarial term must be for its gradient to be as long as the reconstruction's: a scalar in
/// `[0, 1e4]` without a gradient. Esser et al. 2021, eq. 7; taming-transformers `vqperceptual.py:64`.
pub(super) fn balance(reconstruction: &Tensor, adversarial: &Tensor) -> Tensor {
    (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0., 1e4)
}

/// E‖∇ₓ D(x)‖² over real images `x`, D being the sum over patches; its weight is halved by whoever adds it.
/// Mescheder et al. 2018, eq. 9.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, from which `answers` were made, and which takes a gradient
pub(super) fn gradient_penalty(x: &Tensor, answers: &Tensor) -> Tensor {
    let _exact = autocast(x.device(), Kind::Float);
    let total = answers.to_kind(Kind::Float).sum(Kind::Float);
    let gradient = differentiable_gradients(&[&total], &[x]).expect("answers to these images").remove(0);
    gradient.square().sum(Kind::Float) / x.size()[0] as f64
}

/// E‖D(x) − α_F‖² + E‖D(y) − α_R‖², α being the running means of the answers to the other kind. Tseng et al. 2021,
/// eq. 4.
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
    fn the_penalty_of_a_known_critic() {
        // D(x) = Σ w x² on two images of two pixels: ∇D = 2 w x, and ∂‖∇D‖²/∂w = 8 w x².
        let x = Tensor::from_slice(&[1_f32, 2., -3., 0.5]).view([2, 1, 1, 2]).set_requires_grad(true);
        let w = Tensor::from_slice(&[0.5_f32, -1.]).set_requires_grad(true);
        let answers = &w * x.square();
        let penalty = gradient_penalty(&x, &answers);
        // ((1)² + (−4)² + (−3)² + (−1)²) / 2
        assert!((scalar(&penalty) - 13.5).abs() < 1e-5, "{penalty:?}");
        penalty.backward();
        // Σ over images of 8 w x², halved: 4·0.5·(1 + 9), 4·(−1)·(4 + 0.25)
        let grads: Vec<f32> = Vec::try_from(w.grad()).expect("two numbers");
        assert_eq!(grads, [20., -17.]);
    }

    #[test]
    fn lecam_pulls_towards_the_other_mean() {
        let of = |values: &[f32]| Tensor::from_slice(values);
        let got = lecam(&of(&[1., 3.]), &of(&[-2.]), &of(&[0.5]), &of(&[-1.]));
        // ((1+1)² + (3+1)²)/2 + (−2−0.5)²
        assert!((scalar(&got) - (10. + 6.25)).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn the_balance_is_clamped() {
        let of = |value: f64| Tensor::full([4], value, (Kind::Float, Device::Cpu));
        assert!((scalar(&balance(&of(3.), &of(1.))) - 6. / (2. + 1e-4)).abs() < 1e-5);
        assert_eq!(scalar(&balance(&of(3.), &of(0.))), 1e4);
    }
}
