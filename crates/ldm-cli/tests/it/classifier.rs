//! Classifier guidance: training on the noisy latents of a diffusion model, and sampling from that model.

use ldm_checkpoint::Checkpoint;
use ldm_testing::Sandbox;
use ldm_testing::tiny;
use serde_json::Value;

use crate::LDM;

fn first_stage() -> String {
    tiny::first_stage("batch_size: 4", "steps: 2, learning_rate: 1.0e-3, samples: {count: 0}")
}

const DIFFUSION: &str = "
model:
  target: latent_diffusion
  params:
    image_size: 8
    channels: 4
    linear_end: LAST
    cond_stage_trainable: true
    unet_config:
      target: unet
      params: {in_channels: 4, out_channels: 4, model_channels: 32, attention_resolutions: [1], num_res_blocks: 1,
               channel_mult: [1, 1], num_head_channels: 16, MORE}
    first_stage_config:
      target: kl
      params:
        embed_dim: 4
        ckpt_path: first
        ddconfig: {double_z: true, z_channels: 4, resolution: 16, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
                   num_res_blocks: 1, attn_resolutions: [], attn_type: none}
    cond_stage_config: CONDITION
data: {target: data_module, params: {batch_size: 4, train: SCENES}}
train: {steps: 2, learning_rate: 1.0e-3, samples: {count: 0}}
";

const CLASSIFIER: &str = "
model:
  target: noisy_latent_classifier
  params: {diffusion_path: plain, num_classes: 10}
data: {target: data_module, params: {batch_size: 4, train: SCENES, validation: SCENES}}
train: {steps: 30, learning_rate: 1.0e-3, log_every: 10, ema: null, validate_images: 8, samples: {count: 2}}
";

/// The latent of the first image.
fn latents(sandbox: &Sandbox, name: &str) -> Vec<f32> {
    let latents = Checkpoint::open(sandbox.path(name)).unwrap().tensor("latents").unwrap();
    Vec::try_from(latents.get(0).view(-1)).unwrap()
}

#[test]
fn from_a_diffusion_model_to_images_of_a_class() {
    let config = |text: &str| text.replace("SCENES", tiny::SCENES);
    let diffusion = |condition: &str, more: &str, last: &str| {
        config(DIFFUSION).replace("CONDITION", condition).replace("MORE", more).replace("LAST", last)
    };
    let nothing = ["__is_unconditional__", "use_scale_shift_norm: true"];
    let classes = ["{target: class, params: {embed_dim: 16, n_classes: 11, null_class: 10}}"];
    let transformer = "use_spatial_transformer: true, context_dim: 16";
    let sandbox = Sandbox::new(
        LDM,
        &[
            ("first.yaml", &first_stage()),
            ("plain.yaml", &diffusion(nothing[0], nothing[1], "0.02")),
            ("classes.yaml", &diffusion(classes[0], transformer, "0.02")),
            ("noisier.yaml", &diffusion(nothing[0], nothing[1], "0.03")),
            ("classifier.yaml", &config(CLASSIFIER)),
        ],
    );
    for name in ["first", "plain", "classes", "noisier", "classifier"] {
        sandbox.output(&["train", &format!("{name}.yaml"), "--run", name]);
    }
    let log = std::fs::read_to_string(sandbox.path("classifier/metrics.jsonl")).unwrap();
    assert!(log.contains("\"acc@1\"") && log.contains("\"val/acc@5\""), "{log}");
    let (about, _) = sandbox.output(&["inspect", "classifier"]);
    assert!(about.contains("classifier of noisy latents, 10 classes, 4 latent channels"), "{about}");
    assert!(about.contains("fits          all names and shapes"), "{about}");

    // It needs nothing it was trained with but the diffusion model.
    std::fs::rename(sandbox.path("first"), sandbox.path("elsewhere")).unwrap();
    let draw = |out: &str, model: &str, extra: &[&str]| {
        let save = format!("{out}.safetensors");
        let head = ["sample", "--model", model, "--steps", "3", "--out", out, "--save-latents", &save];
        sandbox.output(&[&head[..], extra].concat())
    };
    let lead = ["--classifier", "classifier", "--class", "star"];
    draw("free", "plain", &[]);
    let (stdout, stderr) =
        draw("led", "plain", &[&lead[..], &["--classifier-scale", "300", "--json"]].concat());
    assert_eq!(stderr, "");
    let line: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((line["class"].as_str(), line["classifier"].as_str()), (Some("star"), Some("classifier")));
    assert_eq!(line["classifier_scale"].as_f64(), Some(300.));
    let (text, _) = sandbox.output(&["inspect", "led/00000.png"]);
    assert!(
        text.contains("class: star\nSteps: 3, ")
            && text.contains(", Classifier: classifier, Classifier scale: 300")
    );
    let far = |one: &str, other: &str| {
        let (one, other) = (latents(&sandbox, one), latents(&sandbox, other));
        one.iter().zip(&other).map(|(one, other)| (one - other).abs()).fold(0_f32, f32::max)
    };
    assert!(far("free.safetensors", "led.safetensors") > 1e-3, "the classifier guides");
    draw("unled", "plain", &[&lead[..], &["--classifier-scale", "0"]].concat());
    assert!(far("free.safetensors", "unled.safetensors") == 0., "a scale of 0 changes nothing");
    draw("other", "plain", &["--classifier", "classifier", "--class", "5", "--classifier-scale", "300"]);
    assert!(far("led.safetensors", "other.safetensors") > 1e-3, "another class gives another image");

    // Together with classifier-free guidance, of a class-conditional model.
    let both = [&lead[..], &["--guidance-scale", "2"]].concat();
    draw("both", "classes", &both);
    let (text, _) = sandbox.output(&["inspect", "both/00000.png"]);
    assert!(text.contains("CFG scale: 2") && text.contains("Classifier scale: 1"), "{text}");

    let sample =
        |model: &'static str, extra: &[&'static str]| [&["sample", "--model", model][..], extra].concat();
    let by =
        |model, extra: &[&'static str]| sample(model, &[&["--classifier", "classifier"][..], extra].concat());
    sandbox.err(&by("plain", &[]), 1, "--classifier: expected --class too");
    sandbox.err(
        &sample("plain", &["--class", "1", "--classifier-scale", "2"]),
        1,
        "--classifier-scale: expected --classifier too",
    );
    sandbox.err(&by("plain", &["--class", "1", "--classifier-scale", "nan"]), 2, "expected a finite number");
    sandbox.err(&by("plain", &["--class", "cat"]), 1, "--class: expected 0 to 9, or one of");
    sandbox.err(
        &by("classes", &["--class", "10"]),
        1,
        "expected 0 to 9, the classes of the classifier, got 10",
    );
    sandbox.err(
        &by("noisier", &["--class", "1"]),
        1,
        "expected the noise schedule of the model, got another",
    );
    sandbox.err(
        &by("plain", &["--class", "1", "--height", "32", "--width", "32"]),
        1,
        "latent: expected 8x8 (a classifier with pool attention), got 16x16",
    );
    sandbox.err(
        &sample("plain", &["--class", "1", "--classifier", "classes"]),
        1,
        "expected a classifier of noisy latents, got another model",
    );
    sandbox.err(
        &sample("plain", &["--class", "1"]),
        1,
        "--class: expected a class-conditional model or --classifier",
    );
    sandbox.err(
        &sample("classifier", &[]),
        1,
        "expected a diffusion model or a first stage, got a classifier",
    );
    sandbox.err(
        &["convert", "classifier", "c.ckpt", "--to", "compvis"],
        1,
        "expected a diffusion model or a first stage, got a classifier",
    );
}
