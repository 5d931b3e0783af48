//! Evaluations with inputs and outputs at fixed places, compared with plain ones to the bit.

use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_libtorch::{autocast, channels_last, count_operations};
use ldm_testing::fill_weights;
use ldm_unet::{ConditioningCache, ControlResiduals, DeepFeatures, Evaluation, Recordings, UNet, UNetConfig};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A network with a concat, a label and a context.
fn network(changes: &[(&str, Value)]) -> (VarStore, UNet) {
    let mut config = json!({
        "image_size": 8, "in_channels": 7, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
        "attention_resolutions": [1, 2], "channel_mult": [1, 2], "num_heads": 4, "use_spatial_transformer": true,
        "context_dim": 24, "num_classes": 5,
    });
    for (key, value) in changes {
        config[key] = value.clone();
    }
    let config: UNetConfig = serde_json::from_value(config).unwrap();
    let vs = VarStore::new(test_device());
    let unet = UNet::new(&vs.root(), &config).unwrap();
    fill_weights(&vs, 5);
    (vs, unet)
}

fn randn(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, test_device()))
}

/// Values, to be changed one by one.
struct Given {
    x: Tensor,
    concat: Tensor,
    context: Tensor,
    label: Tensor,
}

impl Given {
    fn new(size: [i64; 3]) -> Self {
        let [batch, height, width] = size;
        Self {
            x: randn(&[batch, 4, height, width]),
            concat: randn(&[batch, 3, height, width]),
            context: randn(&[batch, 7, 24]),
            label: Tensor::arange(batch, (Kind::Int64, test_device())),
        }
    }

    fn cond(&self, unet: &UNet) -> ConditioningCache {
        let slot = |tensor: &Tensor| Some(tensor.shallow_clone());
        unet.precompute(&Conditioning {
            concat: slot(&self.concat),
            context: slot(&self.context),
            label: slot(&self.label),
        })
    }

    fn plain(&self, unet: &UNet, t: f64, options: Evaluation) -> Tensor {
        let t = Tensor::full([self.x.size()[0]], t, (Kind::Float, test_device()));
        unet.evaluate(&self.x, &t, &self.cond(unet), options)
    }
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.equal(b) && a.stride() == b.stride()
}

#[test]
fn results_are_those_of_plain_evaluations_in_every_dtype_and_format() {
    for (kind, last) in [(Kind::Float, false), (Kind::Float, true), (Kind::BFloat16, true)] {
        let (mut vs, unet) = network(&[]);
        vs.set_kind(kind);
        if last {
            channels_last(&vs);
        }
        let recordings = Recordings::again();
        let _guard = tch::no_grad_guard();
        let mut given = Given::new([2, 8, 8]);
        let cond = given.cond(&unet);
        let mut kept: Vec<(Tensor, Tensor)> = Vec::new();
        for t in [981., 500.5, 0.] {
            given.x = randn(&[2, 4, 8, 8]);
            let got = recordings.evaluate(&unet, &given.x, t, &cond, Evaluation::default());
            kept.push((got, given.plain(&unet, t, Evaluation::default())));
        }
        // After all calls: none overwrites what another returned.
        assert!(kept.iter().all(|(got, want)| same(got, want)), "{kind:?}");
        assert_eq!(recordings.count(), 1);
    }
}

#[test]
fn a_new_conditioning_replaces_every_slot() {
    let (_vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    let mut given = Given::new([2, 8, 8]);
    let mut last = Tensor::zeros([1], (Kind::Float, test_device()));
    for slot in ["first", "concat", "context", "label"] {
        match slot {
            "concat" => given.concat = randn(&[2, 3, 8, 8]),
            "context" => given.context = randn(&[2, 7, 24]),
            "label" => given.label = &given.label + 2,
            _ => {}
        }
        let got = recordings.evaluate(&unet, &given.x, 300., &given.cond(&unet), Evaluation::default());
        assert!(same(&got, &given.plain(&unet, 300., Evaluation::default())), "{slot}");
        assert!(!got.equal(&last), "{slot} matters");
        last = got;
    }
    assert_eq!(recordings.count(), 1, "all of one shape");
}

#[test]
fn tiles_of_one_conditioning_share_a_recording() {
    let (_vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    let given = Given::new([1, 16, 16]);
    let cond = given.cond(&unet);
    let tiles = ldm_core::Tiles::new([16, 16], 8, 4);
    let t = Tensor::full([1], 40., (Kind::Float, test_device()));
    let got = tiles.blend(1, |tile| {
        recordings.evaluate(&unet, &tile.of(&given.x), 40., &cond.part(tile), Evaluation::default())
    });
    let want =
        tiles.blend(1, |tile| unet.evaluate(&tile.of(&given.x), &t, &cond.part(tile), Evaluation::default()));
    assert!(same(&got, &want));
    assert_eq!(recordings.count(), 1);
}

#[test]
fn deep_features_are_filled_and_read() {
    let (_vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    let given = Given::new([2, 8, 8]);
    let cond = given.cond(&unet);
    let (mut features, mut own) = (None, None);
    for t in [700., 600., 500.] {
        for _ in 0..2 {
            let deep = Some(DeepFeatures { depth: 2, features: &mut features });
            let options = Evaluation { deep, ..Evaluation::default() };
            let got = recordings.evaluate(&unet, &given.x, t, &cond, options);
            let deep = Some(DeepFeatures { depth: 2, features: &mut own });
            let want = given.plain(&unet, t, Evaluation { deep, ..Evaluation::default() });
            assert!(same(&got, &want), "at {t}");
            assert!(same(features.as_ref().unwrap(), own.as_ref().unwrap()), "at {t}");
        }
        (features, own) = (None, None);
    }
    assert_eq!(recordings.count(), 2, "all blocks, and the shallow ones");
}

#[test]
fn residuals_of_control_nets_are_read_anew() {
    let (_vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    let given = Given::new([2, 8, 8]);
    let cond = given.cond(&unet);
    let down = [[32, 8], [32, 8], [32, 4], [64, 4]];
    let mut last = None;
    for _ in 0..2 {
        let residual = |[channels, side]: [i64; 2]| randn(&[2, channels, side, side]);
        let control = ControlResiduals { down: down.map(residual).into(), middle: residual([64, 4]) };
        let with = || Evaluation { control: Some(&control), ..Evaluation::default() };
        let got = recordings.evaluate(&unet, &given.x, 300., &cond, with());
        assert!(same(&got, &given.plain(&unet, 300., with())));
        assert!(last.replace(got.copy()).is_none_or(|last: Tensor| !got.equal(&last)));
    }
    let without = recordings.evaluate(&unet, &given.x, 300., &cond, Evaluation::default());
    assert!(same(&without, &given.plain(&unet, 300., Evaluation::default())));
    assert_eq!(recordings.count(), 2);
}

#[test]
fn recordings_of_weights_that_have_moved_are_dropped() {
    let (mut vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    let sizes = [[1, 8, 8], [2, 8, 8]];
    let fill = || {
        for size in sizes {
            let given = Given::new(size);
            let got = recordings.evaluate(&unet, &given.x, 9., &given.cond(&unet), Evaluation::default());
            assert!(same(&got, &given.plain(&unet, 9., Evaluation::default())));
        }
        recordings.count()
    };
    let one = || {
        let given = Given::new(sizes[0]);
        let _ = recordings.evaluate(&unet, &given.x, 9., &given.cond(&unet), Evaluation::default());
        recordings.count()
    };
    assert_eq!((fill(), one()), (2, 2));
    // Overwritten weights, as by an optimizer, are where they were.
    let mut weight = vs.variables()["out.2.weight"].detach();
    weight.copy_(&(&weight * 2.));
    assert_eq!(one(), 2);
    // Merged LoRAs, another memory format, another dtype.
    vs.variables().get_mut("middle_block.0.in_layers.2.weight").unwrap().set_data(&randn(&[64, 64, 3, 3]));
    assert_eq!((one(), fill()), (1, 2));
    channels_last(&vs);
    assert_eq!((one(), fill()), (1, 2));
    vs.set_kind(Kind::BFloat16);
    assert_eq!((one(), fill()), (1, 2));
}

#[test]
fn four_shapes_are_kept() {
    let (_vs, unet) = network(&[]);
    let recordings = Recordings::again();
    let _guard = tch::no_grad_guard();
    for (batch, count) in [(1, 1), (2, 2), (1, 2), (3, 3), (4, 4), (5, 4), (1, 4), (5, 4)] {
        let given = Given::new([batch, 4, 4]);
        let got = recordings.evaluate(&unet, &given.x, 9., &given.cond(&unet), Evaluation::default());
        assert!(same(&got, &given.plain(&unet, 9., Evaluation::default())));
        assert_eq!(recordings.count(), count, "batches of {batch}");
    }
}

#[test]
fn what_cannot_be_recorded_is_evaluated_plainly() {
    let (_vs, unet) = network(&[]);
    let given = Given::new([1, 8, 8]);
    let evaluated = |recordings: &Recordings, given: &Given, options: Evaluation| {
        let _ = tch::no_grad(|| recordings.evaluate(&unet, &given.x, 9., &given.cond(&unet), options));
        recordings.count()
    };
    let recordings = Recordings::again();
    let merging = Evaluation { merged_tokens: 0.5, ..Evaluation::default() };
    assert_eq!(evaluated(&recordings, &given, merging), 0);
    {
        let _guard = autocast(test_device(), Kind::BFloat16);
        assert_eq!(evaluated(&recordings, &given, Evaluation::default()), 0);
    }
    let count = || evaluated(&recordings, &given, Evaluation::default());
    let (counted, operations) = count_operations(count);
    assert_eq!((counted, operations.is_empty()), (0, false));
    assert_eq!(count(), 1);
    let (_vs, small) = network(&[
        ("attention_resolutions", json!([])),
        ("use_spatial_transformer", json!(false)),
        ("context_dim", Value::Null),
        ("num_classes", Value::Null),
        ("in_channels", json!(4)),
    ]);
    let recordings = Recordings::again();
    let cond = small.precompute(&Conditioning::default());
    for (side, count) in [(184, 0), (180, 1)] {
        let x = randn(&[1, 4, side, side]);
        let _ = tch::no_grad(|| recordings.evaluate(&small, &x, 9., &cond, Evaluation::default()));
        assert_eq!(recordings.count(), count, "{side} x {side}");
    }
    for recordings in [Recordings::on(Device::Cpu), Recordings::default()] {
        let counts = (0..9).map(|_| evaluated(&recordings, &given, Evaluation::default()));
        assert_eq!(counts.max(), Some(0));
        assert_eq!(recordings.take_failure(), None);
    }
}
