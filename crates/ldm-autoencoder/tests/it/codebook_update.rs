//! EMA and restarts of codebook entries against their formulas.

use ldm_autoencoder::{Codebook, CodebookConfig, CodebookUpdate};
use ldm_core::device::test_device;
use ldm_core::noise::Replay;
use ldm_testing::assert_close;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::randn;

struct Fixture {
    vs: VarStore,
    codebook: Codebook,
    update: CodebookUpdate,
}

fn fixture(config: &CodebookConfig) -> Fixture {
    let vs = VarStore::new(test_device());
    let quantize = vs.root() / "quantize";
    let codebook = Codebook::new(&quantize, config).unwrap();
    let mut table = codebook.embedding().shallow_clone();
    tch::no_grad(|| table.copy_(&randn(1, &table.size())));
    let update = CodebookUpdate::new(&quantize, &codebook, config).unwrap();
    Fixture { vs, codebook, update }
}

fn no_noise() -> Replay {
    Replay::new([])
}

#[test]
fn entries_are_the_ema_of_their_latents() {
    const DECAY: f64 = 0.9;
    let config = CodebookConfig { ema_decay: Some(DECAY), ..CodebookConfig::new(5, 3) };
    let mut fixture = fixture(&config);
    let table = fixture.codebook.embedding().shallow_clone();
    let row = |table: &Tensor, entry: i64| table.get(entry).to_kind(Kind::Double).copy();
    // The formula, entry by entry, in f64.
    let mut size = [1.; 5];
    let mut sum: Vec<Tensor> = (0..5).map(|entry| row(&table, entry)).collect();
    for step in 0..4 {
        // Two micro-batches per step count together.
        for micro in 0..2 {
            let z = randn(10 + 2 * step + micro, &[2, 3, 2, 2]);
            let quantized = fixture.codebook.forward(&z, &mut no_noise());
            let commitment = (fixture.codebook.quantize(&z) - &z).square().mean(Kind::Float);
            assert_close("loss", &quantized.loss, &commitment, 1e-6);
            fixture.update.see(&quantized);
            let rows = z.permute([0, 2, 3, 1]).reshape([-1, 3]).to_kind(Kind::Double);
            let first = micro == 0;
            for entry in 0..5 {
                if first {
                    size[entry] *= DECAY;
                    sum[entry] = &sum[entry] * DECAY;
                }
            }
            let nearest: Vec<i64> = Vec::try_from(&quantized.nearest).unwrap();
            for (place, entry) in nearest.into_iter().enumerate() {
                size[entry as usize] += 1. - DECAY;
                sum[entry as usize] += rows.get(place as i64) * (1. - DECAY);
            }
        }
        fixture.update.step(&fixture.codebook, &mut no_noise());
        for entry in 0..5 {
            let want = &sum[entry] / size[entry];
            assert_close("entry", &row(&table, entry as i64), &want, 1e-5);
        }
    }
    let names: Vec<String> =
        fixture.vs.variables().into_keys().filter(|name| CodebookUpdate::holds(name)).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn an_unused_entry_does_not_move() {
    let config = CodebookConfig { ema_decay: Some(0.5), ..CodebookConfig::new(2, 1) };
    let mut fixture = fixture(&config);
    let mut table = fixture.codebook.embedding().shallow_clone();
    tch::no_grad(|| {
        table.copy_(&Tensor::from_slice(&[0_f32, 50.]).view([2, 1]).to_device(test_device()));
        fixture.vs.variables()["quantize.embedding.embed_avg"].shallow_clone().copy_(&table);
    });
    for seed in 0..200 {
        let z = randn(seed, &[1, 1, 2, 2]);
        fixture.update.see(&fixture.codebook.forward(&z, &mut no_noise()));
        fixture.update.step(&fixture.codebook, &mut no_noise());
    }
    assert!((table.double_value(&[1, 0]) - 50.).abs() < 1e-3, "{table:?}");
    assert!(table.double_value(&[0, 0]).abs() < 2.);
}

#[test]
fn dead_entries_become_latents_of_the_batch() {
    for ema_decay in [None, Some(0.99)] {
        let config = CodebookConfig { restart_after: Some(2), ema_decay, ..CodebookConfig::new(3, 1) };
        let mut fixture = fixture(&config);
        let mut table = fixture.codebook.embedding().shallow_clone();
        let start = Tensor::from_slice(&[0_f32, 1., 100.]).view([3, 1]).to_device(test_device());
        tch::no_grad(|| {
            table.copy_(&start);
            if ema_decay.is_some() {
                fixture.vs.variables()["quantize.embedding.embed_avg"].shallow_clone().copy_(&start);
            }
        });
        let z = Tensor::from_slice(&[0_f32, 0.2, 1., 1.1]).view([1, 1, 2, 2]).to_device(test_device());
        let step = |fixture: &mut Fixture| {
            fixture.update.see(&fixture.codebook.forward(&z, &mut no_noise()));
            // The latent that would replace each entry.
            let drawn = Tensor::from_slice(&[0_i64, 1, 3]);
            fixture.update.step(&fixture.codebook, &mut Replay::new([drawn]));
            fixture.codebook.embedding().double_value(&[2, 0])
        };
        assert!((step(&mut fixture) - 100.).abs() < 1e-4, "one step without use is not two");
        assert!((step(&mut fixture) - 1.1).abs() < 1e-6);
        if ema_decay.is_none() {
            assert_eq!(table.double_value(&[0, 0]), 0., "used entries are not restarted");
        }
        // The count starts again.
        assert!((step(&mut fixture) - 1.1).abs() < 2e-3);
        assert_eq!(fixture.vs.variables()["quantize.unused_steps"].sum(Kind::Int64).int64_value(&[]), 0);
    }
}

#[test]
fn nothing_is_created_unless_enabled() {
    let vs = VarStore::new(test_device());
    let config = CodebookConfig::new(4, 2);
    let codebook = Codebook::new(&vs.root(), &config).unwrap();
    assert!(CodebookUpdate::new(&vs.root(), &codebook, &config).is_none());
    assert_eq!(vs.len(), 1);
    for (config, key) in [
        (
            CodebookConfig { ema_decay: Some(1.), ..config.clone() },
            "`ema_decay`: expected at least 0 and below 1",
        ),
        (
            CodebookConfig { restart_after: Some(0), ..config.clone() },
            "`restart_after`: expected a positive number",
        ),
    ] {
        let error = Codebook::new(&vs.root(), &config).unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
}
