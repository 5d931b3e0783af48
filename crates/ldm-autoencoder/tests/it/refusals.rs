//! Invalid configs, one change and one message each; and defaults.

use ldm_autoencoder::{AttentionType, Autoencoder, FirstStage, FirstStageConfig, IdentityConfig, build};
use ldm_core::device::test_device;
use serde_yaml::Value;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

const KL: &str = "
target: kl
params:
  embed_dim: 2
  ddconfig: {z_channels: 2, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 2], num_res_blocks: 1, attn_resolutions: []}
";
const VQ: &str = "
target: vq
params:
  embed_dim: 2
  n_embed: 8
  ddconfig: {double_z: false, z_channels: 2, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1], num_res_blocks: 1, attn_resolutions: []}
";

/// `base` with `value` at the dotted `key` below `params`, built.
fn built(base: &str, key: &str, value: &str) -> Result<Box<dyn FirstStage>, String> {
    let mut tree: Value = serde_yaml::from_str(base).unwrap();
    let mut at = &mut tree["params"];
    for part in key.split('.').filter(|part| !part.is_empty()) {
        at = at.as_mapping_mut().unwrap().entry(part.into()).or_insert(Value::Null);
    }
    if !key.is_empty() {
        *at = serde_yaml::from_str(value).unwrap();
    }
    let text = serde_yaml::to_string(&tree).unwrap();
    let config: FirstStageConfig = serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    build(&VarStore::new(test_device()).root(), &config).map_err(|error| error.to_string())
}

#[track_caller]
fn check(base: &str, key: &str, value: &str, want: &str) {
    match built(base, key, value) {
        Ok(model) => panic!("`{key}: {value}` was accepted: {model:?}"),
        Err(message) => assert!(message.contains(want), "`{key}: {value}`\n got: {message}\nwant: {want}"),
    }
}

#[test]
fn invalid_configs_are_refused() {
    assert!(built(KL, "", "").is_ok() && built(VQ, "", "").is_ok());
    for (key, value, want) in [
        ("embed_dim", "0", "`embed_dim`: expected a positive number, got 0"),
        ("embed_dim", "[2]", "embed_dim: invalid type: sequence"),
        ("n_embed", "8", "unknown field `n_embed`"),
        ("sample_posterior", "true", "unknown field `sample_posterior`"),
        ("colorize_nlabels", "0", "`colorize_nlabels`: expected a positive number, got 0"),
        (
            "ddconfig.double_z",
            "false",
            "`ddconfig.double_z`: expected true, as a Gaussian has mean and variance, got false",
        ),
        ("ddconfig.z_channels", "-1", "`ddconfig.z_channels`: expected a positive number, got -1"),
        ("ddconfig.resolution", "0", "`ddconfig.resolution`: expected a positive number, got 0"),
        ("ddconfig.in_channels", "0", "`ddconfig.in_channels`: expected a positive number, got 0"),
        ("ddconfig.out_ch", "0", "`ddconfig.out_ch`: expected a positive number, got 0"),
        ("ddconfig.ch", "0", "`ddconfig.ch`: expected a positive number, got 0"),
        (
            "ddconfig.ch",
            "48",
            "`ddconfig.ch`: expected channels divisible by 32 at every level (group norm), got 48",
        ),
        ("ddconfig.num_res_blocks", "0", "`ddconfig.num_res_blocks`: expected a positive number, got 0"),
        ("ddconfig.ch_mult", "[]", "`ddconfig.ch_mult`: expected 1 to 31 levels, got 0"),
        ("ddconfig.ch_mult", "[1, 0]", "`ddconfig.ch_mult`: expected a positive number, got 0"),
        ("ddconfig.ch_mult", "[0.5]", "invalid type: floating point `0.5`, expected i64"),
        (
            "ddconfig.attn_resolutions",
            "[0]",
            "`ddconfig.attn_resolutions`: expected a positive number, got 0",
        ),
        ("ddconfig.dropout", "1.0", "`ddconfig.dropout`: expected a probability from 0 to below 1, got 1"),
        ("ddconfig.dropout", ".nan", "`ddconfig.dropout`: expected a probability from 0 to below 1, got NaN"),
        (
            "ddconfig.attn_type",
            "flash",
            "unknown variant `flash`, expected one of `vanilla`, `linear`, `none`",
        ),
        ("ddconfig.ch_mults", "[1]", "unknown field `ch_mults`"),
    ] {
        check(KL, key, value, want);
    }
    let missing = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/absent.npy");
    let used = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/used.npy");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest.txt");
    for (key, value, want) in [
        ("n_embed", "0", "`n_embed`: expected a positive number, got 0"),
        (
            "ddconfig.double_z",
            "true",
            "`ddconfig.double_z`: expected false, as a codebook has no variance, got true",
        ),
        ("beta", "-1", "`beta`: expected a finite number of at least 0, got -1"),
        ("lr_g_factor", "0", "`lr_g_factor`: expected a positive number, got 0"),
        ("batch_resize_range", "[64, 32]", "`batch_resize_range`: expected [least, largest], got [64, 32]"),
        ("batch_resize_range", "[64]", "batch_resize_range: invalid length 1"),
        ("unknown_index", "none", "expected `random`, `extra` or an index"),
        ("remap", missing, "absent.npy: "),
        ("remap", text, "manifest.txt: `remap`: expected a .npy array, got another file"),
        ("remap", used, "used.npy: `remap`: expected indices in 0..8, got 11"),
    ] {
        check(VQ, key, value, want);
    }
    let more = VQ.replace("n_embed: 8", &format!("n_embed: 12\n  remap: {used}"));
    check(&more, "unknown_index", "7", "`unknown_index`: expected an index in 0..7, got 7");
    assert!(built(&more, "unknown_index", "6").is_ok());
    let identity = "target: identity\nparams: {}";
    check(identity, "channels", "0", "`channels`: expected a positive number, got 0");
    check(identity, "ch", "3", "unknown field `ch`");
    check(&KL.replace("kl", "vae"), "", "", "unknown variant `vae`");
    let vs = VarStore::new(test_device());
    let error = Autoencoder::new(&vs.root(), &FirstStageConfig::Identity(None)).unwrap_err();
    assert_eq!(error.to_string(), "`target`: expected an autoencoder, `kl` or `vq`, got identity");
}

#[test]
fn defaults_are_those_of_the_reference() {
    let FirstStageConfig::Vq(config) = serde_yaml::from_str(&VQ.replace("ch_mult: [1], ", "")).unwrap()
    else {
        panic!("vq")
    };
    assert_eq!((config.beta, config.legacy, config.lr_g_factor, config.use_ema), (0.25, true, 1., false));
    assert_eq!(config.image_key, "image");
    let net = config.ddconfig;
    assert_eq!(
        (net.ch_mult.as_slice(), net.dropout, net.resamp_with_conv),
        ([1, 2, 4, 8].as_slice(), 0., true)
    );
    assert_eq!((net.attn_type, net.tanh_out, net.give_pre_end), (AttentionType::Vanilla, false, false));
    let FirstStageConfig::Kl(config) = serde_yaml::from_str(KL).unwrap() else { panic!("kl") };
    assert!(config.ddconfig.double_z);
}

#[test]
fn long_names_and_training_fields_round_trip() {
    for text in [
        KL.replace("target: kl", "target: ldm.models.autoencoder.AutoencoderKL"),
        VQ.replace("target: vq", "target: ldm.models.autoencoder.VQModel"),
        VQ.replace(
            "target: vq\nparams:",
            "target: ldm.models.autoencoder.VQModelInterface
params:
  lossconfig: {target: torch.nn.Identity}
  ckpt_path: a/b.ckpt
  ignore_keys: [loss]
  image_key: segmentation
  colorize_nlabels: 3
  monitor: val/rec_loss
  batch_resize_range: [128, 256]
  scheduler_config: {target: x, params: {a: 1}}
  lr_g_factor: 2.0
  remap: null
  sane_index_shape: true
  use_ema: true",
        ),
        "target: ldm.models.autoencoder.IdentityFirstStage".into(),
        "target: identity\nparams: {vq_interface: true, channels: 4}".into(),
    ] {
        let config: FirstStageConfig =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        config.validate().unwrap();
        let written = serde_yaml::to_string(&config).unwrap();
        let again: FirstStageConfig =
            serde_yaml::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(again, config);
    }
}

#[test]
fn identity_changes_nothing() {
    for (params, channels) in [(None, 3), (Some(IdentityConfig { vq_interface: true, channels: 5 }), 5)] {
        let vs = VarStore::new(test_device());
        let stage = build(&vs.root(), &FirstStageConfig::Identity(params)).unwrap();
        assert!(vs.is_empty());
        assert_eq!((stage.factor(), stage.latent_size([7, 9])), (1, [channels, 7, 9]));
        let image = Tensor::rand([1, channels, 7, 9], (Kind::Float, test_device()));
        assert_eq!(stage.decode(&stage.encode(&image).mode()), image);
    }
}

#[test]
fn image_sizes_are_checked() {
    let stage = built(KL, "ddconfig.ch_mult", "[1, 1, 1]").unwrap();
    assert_eq!(stage.factor(), 4);
    assert!(stage.check_image_size([4, 12]).is_ok());
    for (size, want) in [
        ([10, 12], "image: expected height and width in multiples of 4, got 10x12; try 8x12 or 12x12"),
        ([3, 4], "image: expected height and width in multiples of 4, got 3x4; try 4x4"),
        ([0, 9], "image: expected height and width in multiples of 4, got 0x9; try 4x8 or 4x12"),
    ] {
        assert_eq!(stage.check_image_size(size).unwrap_err().to_string(), want);
    }
}

#[test]
fn dropout_drops_in_training_only() {
    let config = KL.replace("num_res_blocks: 1,", "num_res_blocks: 1, dropout: 0.3,");
    let vs = VarStore::new(test_device());
    let model = Autoencoder::new(&vs.root(), &serde_yaml::from_str(&config).unwrap()).unwrap();
    let image = Tensor::rand([1, 3, 8, 8], (Kind::Float, test_device()));
    let encode = |train: bool| model.encode_train(&image, train).mode();
    assert_eq!(encode(false), encode(false));
    assert_ne!(encode(true), encode(false));
    assert_ne!(encode(true), encode(true));
    let z = encode(false);
    assert_eq!(model.decode_train(&z, false), model.decode(&z));
    assert_ne!(model.decode_train(&z, true), model.decode(&z));
}
