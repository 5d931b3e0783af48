//! Values and gradients against CompVis' own code; `golden/generate.py` made the files.

use ldm_autoencoder::{Autoencoder, Bottleneck, FirstStage, FirstStageConfig, Posterior};
use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_libtorch::{channels_last, is_channels_last, to_channels_last};
use ldm_testing::{Golden, assert_close, fill_weights, relative_l2};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Tolerances of relative L2. Golden values are computed in f64 and stored as f32; in f64 only that rounding may show.
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 1e-5), (Kind::Double, 1e-7)];
const TOLERANCE: f64 = 1e-5;

fn open(name: &str) -> Golden {
    Golden::open(crate::golden(&format!("{name}.safetensors")), test_device())
}

/// The golden file, its model with weights by the formula of the generator in `kind`, and the model's variables.
pub(crate) fn load(name: &str, kind: Kind) -> (Golden, Autoencoder, VarStore) {
    let golden = open(name);
    let config: FirstStageConfig = serde_json::from_str(golden.metadata("config")).unwrap();
    let mut vs = VarStore::new(test_device());
    let model = Autoencoder::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, if matches!(config, FirstStageConfig::Kl(_)) { 1 } else { 2 });
    vs.set_kind(kind);
    (golden, model, vs)
}

pub(crate) fn gaussian(posterior: &Posterior) -> (&Tensor, &Tensor) {
    match posterior {
        Posterior::Gaussian { mean, logvar } => (mean, logvar),
        Posterior::Point(_) => panic!("a Gaussian"),
    }
}

#[track_caller]
fn check_gradients(golden: &Golden, vs: &VarStore, loss: &Tensor, tolerance: f64) {
    assert_close("loss", loss, golden.get("loss"), tolerance);
    loss.backward();
    let variables = vs.variables();
    for (name, want) in golden.scope("gradient.") {
        assert_close(&format!("gradient of {name}"), &variables[&name].grad(), &want, tolerance);
    }
}

#[track_caller]
fn check_kl(name: &str, kind: Kind, tolerance: f64) {
    let (golden, model, vs) = load(name, kind);
    let close = |what: &str, got: &Tensor| {
        assert_close(&format!("{name} in {kind:?}: {what}"), got, golden.get(what), tolerance);
    };
    let image = &golden.get("image").to_kind(kind);

    let posterior = model.encode(image);
    let (mean, logvar) = gaussian(&posterior);
    close("mean", mean);
    close("logvar", logvar);
    close("kl", &posterior.kl());
    close("reconstruction_of_mode", &model.decode(&posterior.mode()));

    let mut noise = Replay::new([golden.get("noise").shallow_clone()]);
    let reconstruction = model.forward(image, &mut noise, true);
    close("reconstruction", &reconstruction.image);
    let Bottleneck::Kl(posterior) = reconstruction.bottleneck else { panic!("a Gaussian") };
    if golden.has("rgb") {
        close("rgb", &model.to_rgb(image).unwrap());
    }
    let size = [image.size()[2], image.size()[3]];
    assert_eq!(posterior.mode().size()[1..], model.latent_size(size), "{name}: latent_size");
    if golden.has("loss") {
        let loss = (reconstruction.image - image).square().mean(kind) + posterior.kl().mean(kind) * 1e-3;
        check_gradients(&golden, &vs, &loss, tolerance);
    }
}

#[track_caller]
fn check_vq(name: &str, kind: Kind, tolerance: f64) {
    let (golden, model, vs) = load(name, kind);
    let close = |what: &str, got: &Tensor| {
        assert_close(&format!("{name} in {kind:?}: {what}"), got, golden.get(what), tolerance);
    };
    let image = &golden.get("image").to_kind(kind);

    let z = model.encode(image).mode();
    close("prequant", &z);
    close("reconstruction", &model.decode(&z));
    if golden.has("unquantized") {
        close("unquantized", &model.decode_unquantized(&z, false));
    }

    let reconstruction = model.forward(image, &mut Replay::default(), true);
    close("reconstruction", &reconstruction.image);
    let Bottleneck::Vq(quantized) = reconstruction.bottleneck else { panic!("quantized") };
    close("quant", &quantized.z);
    close("codebook_loss", &quantized.loss);
    assert_eq!(&quantized.indices, golden.get("indices"), "{name}: indices");
    let size = [image.size()[0], z.size()[2], z.size()[3]];
    close("quant", &model.codebook().unwrap().get_codebook_entry(&quantized.indices, size));
    if golden.has("loss") {
        let loss = (reconstruction.image - image).square().mean(kind) + quantized.loss;
        check_gradients(&golden, &vs, &loss, tolerance);
    }
}

#[test]
fn kl_models_equal_the_reference() {
    for name in [
        "kl_f1",                // one level, other channels than three, colors of a segmentation map
        "kl_f2_vanilla",        // attention at a level, two blocks, gradients
        "kl_f4_linear",         // linear attention at a level
        "kl_f4_none",           // no attention, no learned resampling, tanh
        "kl_f8_odd_resolution", // encoder and decoder count nominal resolutions from different ends
        "kl_f2_pre_end",        // use_linear_attn, decoder without its output layers
    ] {
        for (kind, tolerance) in KINDS {
            check_kl(name, kind, tolerance);
        }
    }
}

#[test]
fn vq_models_equal_the_reference() {
    for name in ["vq_f2_model", "vq_f4_interface"] {
        for (kind, tolerance) in KINDS {
            check_vq(name, kind, tolerance);
        }
    }
}

#[test]
fn posterior_equals_the_reference() {
    let golden = open("posterior");
    let posterior = Posterior::from_moments(golden.get("moments"));
    let other = Posterior::from_moments(golden.get("other"));
    let mut noise = Replay::new([golden.get("noise").shallow_clone()]);
    let z = golden.get("z");
    for (what, got) in [
        ("sample", posterior.sample(&mut noise)),
        ("mode", posterior.mode()),
        ("kl", posterior.kl()),
        ("kl_other", other.kl()),
        ("kl_to", other.kl_to(&posterior)),
        ("nll", posterior.nll(z)),
        ("nll_other", other.nll(z)),
    ] {
        assert_close(what, &got, golden.get(what), TOLERANCE);
    }
}

#[test]
fn a_point_has_zero_kl() {
    let z = open("posterior").get("z").shallow_clone();
    let point = Posterior::Point(z.shallow_clone());
    // An empty replay: a point draws no noise.
    assert_eq!(point.sample(&mut Replay::default()), z);
    assert_eq!(point.mode(), z);
    let nothing = Tensor::zeros([z.size()[0]], (Kind::Float, z.device()));
    for got in [point.kl(), point.nll(&z), point.kl_to(&Posterior::Point(z.shallow_clone()))] {
        assert_eq!(got, nothing);
    }
}

/// Memory formats and dtypes agree.
#[test]
fn memory_formats_and_dtypes_agree() {
    for name in ["kl_f2_vanilla", "kl_f4_linear", "kl_f4_none", "vq_f4_interface"] {
        let (golden, model, mut vs) = load(name, Kind::Float);
        let image = golden.get("image");
        let want = golden.get(if golden.has("quant") { "quant" } else { "mean" });
        let _no_grad = tch::no_grad_guard();

        channels_last(&vs);
        let image = to_channels_last(image);
        let z = model.encode(&image).mode();
        let quantized = model.codebook().map_or_else(|| z.shallow_clone(), |codebook| codebook.quantize(&z));
        assert_close(&format!("{name}: channels_last latent"), &quantized, want, TOLERANCE);
        let decoded = model.decode(want);
        assert_close(
            &format!("{name}: channels_last decode"),
            &model.decode(&to_channels_last(want)),
            &decoded,
            TOLERANCE,
        );
        assert!(is_channels_last(&model.decode(&to_channels_last(want))), "{name}: stays channels_last");

        vs.double();
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let exact = model.decode(&double(want));
        assert_eq!(exact.kind(), Kind::Double);
        assert_close(&format!("{name}: f64"), &exact, &decoded, TOLERANCE);
        let exact_z = model.encode(&double(&image)).mode();

        vs.bfloat16();
        let half = |x: &Tensor| x.to_kind(Kind::BFloat16);
        let rough = model.encode(&half(&image)).mode();
        assert_eq!(rough.kind(), Kind::BFloat16);
        // bf16 has eight bits: a relative error of 2⁻⁹ per operation, over dozens of operations.
        let error = relative_l2(&rough, &exact_z);
        assert!(error < 0.03, "{name}: bf16 latent off by {error}");
        if name.starts_with("kl") {
            let error = relative_l2(&model.decode(&half(want)), &exact);
            assert!(error < 0.03, "{name}: bf16 image off by {error}");
        }
    }
}
