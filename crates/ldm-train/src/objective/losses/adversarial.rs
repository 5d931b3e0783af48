//! Formulas of adversarial training.

use ldm_libtorch::{autocast, differentiable_gradients, gradients};
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

/// The gradient of the mean `of` with respect to images, through layers that may run in f16.
///
/// A pixel's share of a mean is below the smallest number of f16 (6e-8; 6e-5 with all its bits) from 256 x 256 pixels on.
/// Gradients are linear, so that of `of`, multiplied by the number of pixels, is computed and divided again in f32: both
/// factors are powers of two, which change no bit of f32. Micikevicius et al. 2018, §3.2, within a loss.
///
/// # Shapes
/// - `of`: scalar; `images`: `[B, C, H, W]` f32, like the result
pub(super) fn gradient_of_mean(of: &Tensor, images: &Tensor) -> Tensor {
    let pixels = (images.numel() as f64 / images.size()[1] as f64).log2().floor().exp2();
    gradient(&(of * pixels), images) / pixels
}

/// The gradient of Σ `output` · `by` with respect to the weight of a layer that may run in f16: `by` is brought to the
/// range of f16 and the result back, as in [`gradient_of_mean`].
///
/// # Shapes
/// - `output`, `by`: `[B, C, H, W]` f32; returns the shape of `weight`
pub(super) fn gradient_at(weight: &Tensor, output: &Tensor, by: &Tensor) -> Tensor {
    // The sum of absolute values is then 2^10 to 2^11, which bounds the sums of products with activations; a
    // power of two, also for zeros.
    let unit = by.abs().sum(Kind::Float).clamp_min(2_f64.powi(-80)).log2().floor().exp2() / 1024.;
    gradient(&(output * (by / &unit)).sum(Kind::Float), weight) * unit
}

/// The gradient of a scalar.
pub(super) fn gradient(of: &Tensor, by: &Tensor) -> Tensor {
    gradients(&[of], &[by]).expect("a part of the loss").remove(0)
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

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        scalar(&((a - b).norm() / b.norm()))
    }

    /// The gradients of a layer in f16 and in f32, by one of the functions above.
    fn in_both(of: impl Fn(&Tensor, &Tensor) -> Tensor) -> [Tensor; 2] {
        let count = 256_i64;
        let wave = |factor: f64| (Tensor::arange(count * count, (Kind::Float, Device::Cpu)) * factor).sin();
        let kernel = (Tensor::arange(9, (Kind::Float, Device::Cpu)) * 0.7).cos().view([1, 1, 3, 3]) * 0.002;
        [Kind::Half, Kind::Float].map(|kind| {
            let x = wave(0.3).view([1, 1, count, count]).set_requires_grad(true);
            let kernel = kernel.copy().set_requires_grad(true);
            let y = {
                let _autocast = autocast(Device::Cpu, kind);
                x.conv2d::<Tensor>(&kernel, None, 1, 1, 1, 1)
            };
            assert_eq!(y.kind(), kind);
            // In phase with x, so that the sums over pixels do not cancel.
            let by = wave(0.3).view([1, 1, count, count]) / (count * count) as f64;
            let (y, by) = (y.to_kind(Kind::Float), by * 1e-2);
            let mean = (&y * wave(0.11).view([1, 1, count, count])).mean(Kind::Float);
            let _f32 = autocast(Device::Cpu, Kind::Float);
            Tensor::cat(&[of(&mean, &x), gradient_at(&kernel, &y, &by)].map(|grad| grad.flatten(0, -1)), 0)
        })
    }

    #[test]
    fn gradients_of_means_pass_f16_layers() {
        let pixels = 256 * 256;
        let parts = |both: [Tensor; 2]| -> [[Tensor; 2]; 2] {
            [both.each_ref().map(|all| all.narrow(0, 0, pixels)), both.map(|all| all.narrow(0, pixels, 9))]
        };
        let [[half, single], [half_weight, single_weight]] = parts(in_both(gradient_of_mean));
        assert!(distance(&half, &single) < 2e-3, "{}", distance(&half, &single));
        let of_weight = distance(&half_weight, &single_weight);
        assert!(of_weight < 2e-3, "{of_weight}");
        // Without the factor most of it is lost, and in f32 it changes nothing.
        let [[lost, same], _] = parts(in_both(gradient));
        assert!(distance(&lost, &single) > 0.05, "{}", distance(&lost, &single));
        assert_eq!(same, single);
    }

    #[test]
    fn the_gradient_at_a_layer_has_the_bits_of_the_plain_one_in_f32() {
        let of = |values: &[f32]| Tensor::from_slice(values).view([1, 1, 1, -1]);
        let (x, weight) = (of(&[0.3, -1.7, 5.]), Tensor::from(0.7_f32).set_requires_grad(true));
        for by in [of(&[1e-7, -3e-9, 2e-8]), of(&[0.2, 3., -1e4]), of(&[0., 0., 0.])] {
            let output = &x * &weight;
            let plain = gradient(&(&output * &by).sum(Kind::Float), &weight);
            assert_eq!(gradient_at(&weight, &output, &by), plain);
        }
    }

    #[test]
    fn the_adaptive_weight_is_clamped() {
        let of = |value: f64| Tensor::full([4], value, (Kind::Float, Device::Cpu));
        assert!((scalar(&adaptive_weight(&of(3.), &of(1.))) - 6. / (2. + 1e-4)).abs() < 1e-5);
        assert_eq!(scalar(&adaptive_weight(&of(3.), &of(0.))), 1e4);
    }
}
