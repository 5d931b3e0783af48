//! The quantizer against CompVis, and against its own definition.

use ldm_autoencoder::{Codebook, CodebookConfig, UnknownIndex};
use ldm_core::device::test_device;
use ldm_core::noise::{Replay, Seeded};
use ldm_testing::{Golden, assert_close};
use proptest::prelude::*;
use serde_json::Value;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::randn;

/// A codebook of `config` with reproducible entries of N(0, 1).
fn codebook(config: &CodebookConfig) -> (Codebook, VarStore) {
    let vs = VarStore::new(test_device());
    let codebook = Codebook::new(&vs.root(), config).unwrap();
    let mut table = vs.variables().remove("embedding.weight").unwrap();
    tch::no_grad(|| table.copy_(&randn(3, &[config.n_embed, config.embed_dim])));
    (codebook, vs)
}

#[track_caller]
fn check(name: &str) {
    let golden = Golden::open(crate::golden(&format!("{name}.safetensors")), test_device());
    let options: Value = serde_json::from_str(golden.metadata("config")).unwrap();
    let mut config = CodebookConfig::new(12, 3);
    config.legacy = options["legacy"].as_bool().unwrap_or(true);
    config.sane_index_shape = options["sane_index_shape"].as_bool().unwrap_or(false);
    config.remap = options["remap"].as_str().map(crate::golden);
    config.unknown_index = match &options["unknown_index"] {
        Value::Null => UnknownIndex::Random,
        Value::Number(index) => UnknownIndex::Fixed(index.as_i64().unwrap()),
        word => serde_json::from_value(word.clone()).unwrap(),
    };
    let (codebook, vs) = codebook(&config);
    tch::no_grad(|| codebook.embedding().shallow_clone().copy_(golden.get("weights.embedding.weight")));

    let close =
        |what: &str, got: &Tensor| assert_close(&format!("{name}: {what}"), got, golden.get(what), 1e-5);
    let z = golden.get("z").copy().set_requires_grad(true);
    let quantized = codebook.forward(&z, &mut Replay::default());
    close("quant", &quantized.z);
    close("loss", &quantized.loss);
    assert_eq!(&quantized.indices, golden.get("indices"), "{name}: indices");
    close("entries", &codebook.get_codebook_entry(&quantized.indices, [2, 4, 6]));
    close("quant", &codebook.quantize(&z));
    (quantized.loss + (quantized.z * golden.get("cotangent")).sum(Kind::Float)).backward();
    close("gradient.z", &z.grad());
    close("gradient.embedding.weight", &vs.variables()["embedding.weight"].grad());
}

#[test]
fn equals_the_reference() {
    for name in ["codebook_legacy", "codebook", "codebook_remap_extra", "codebook_remap_fixed"] {
        check(name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nearest_is_the_nearest(seed in 0_u64..1000, entries in 1_i64..40, channels in 1_i64..9, rows in 1_i64..50) {
        let (codebook, _vs) = codebook(&CodebookConfig::new(entries, channels));
        let rows = randn(seed, &[rows, channels]);
        let found = codebook.embedding().index_select(0, &codebook.nearest(&rows));
        let distance = (&rows - found).square().sum_dim_intlist(1, false, Kind::Double);
        let all = (rows.unsqueeze(1) - codebook.embedding()).square().sum_dim_intlist(2, false, Kind::Double);
        let least = all.amin(1, false);
        prop_assert!(bool::try_from((distance - least).abs().lt(1e-5).all()).unwrap());
    }
}

/// Distances are computed in chunks of rows; the chunks join up.
#[test]
fn many_rows_are_looked_up_in_chunks() {
    let (codebook, _vs) = codebook(&CodebookConfig::new(1 << 16, 2));
    let rows = randn(5, &[1100, 2]); // 512 rows per chunk
    let all = codebook.nearest(&rows);
    for start in [0, 500, 1090] {
        assert_eq!(codebook.nearest(&rows.narrow(0, start, 10)), all.narrow(0, start, 10));
    }
}

/// Half precision would pick other entries: autocast does not apply to the distances.
#[test]
fn autocast_changes_no_index() {
    let (codebook, _vs) = codebook(&CodebookConfig::new(2048, 4));
    let rows = randn(5, &[500, 4]);
    let want = codebook.nearest(&rows);
    let _autocast = ldm_libtorch::autocast(test_device(), Kind::BFloat16);
    assert_eq!(codebook.nearest(&rows), want);
}

#[test]
fn gradients_pass_straight_through() {
    let (codebook, vs) = codebook(&CodebookConfig::new(9, 4));
    let z = randn(1, &[2, 4, 3, 5]).set_requires_grad(true);
    let cotangent = randn(2, &[2, 4, 3, 5]);
    (codebook.quantize(&z) * &cotangent).sum(Kind::Float).backward();
    assert_eq!(z.grad(), cotangent);
    assert!(!vs.variables()["embedding.weight"].grad().defined(), "the table learns from its loss alone");
}

#[test]
fn indices_round_trip() {
    for sane_index_shape in [false, true] {
        for channels_last in [false, true] {
            let (codebook, _vs) = codebook(&CodebookConfig { sane_index_shape, ..CodebookConfig::new(9, 4) });
            let z = randn(1, &[2, 4, 3, 5]);
            let z = if channels_last { ldm_libtorch::to_channels_last(&z) } else { z };
            let quantized = codebook.forward(&z, &mut Replay::default());
            let want: &[i64] = if sane_index_shape { &[2, 3, 5] } else { &[30] };
            assert_eq!(quantized.indices.size(), want);
            let entries = codebook.get_codebook_entry(&quantized.indices, [2, 3, 5]);
            assert_close("entries", &entries, &quantized.z, 1e-6);
            let again = codebook.forward(&entries, &mut Replay::default());
            assert_eq!(again.indices, quantized.indices);
        }
    }
}

#[test]
fn unknown_indices_become_one_in_use_at_random() {
    let remap = Some(crate::golden("used.npy"));
    let (codebook, vs) =
        codebook(&CodebookConfig { remap, sane_index_shape: true, ..CodebookConfig::new(12, 4) });
    let used = Vec::<i64>::try_from(&vs.variables()["used"]).unwrap();
    assert_eq!((used.as_slice(), codebook.index_count()), ([7, 2, 11, 0, 5, 3, 1].as_slice(), 7));

    let z = randn(1, &[2, 4, 16, 16]);
    let indices = codebook.forward(&z, &mut Seeded::new([1, 2])).indices;
    assert!(indices.min().int64_value(&[]) == 0 && indices.max().int64_value(&[]) == 6);
    let raw = codebook.nearest(&z.permute([0, 2, 3, 1]).reshape([-1, 4])).view([2, 16, 16]);
    let back = codebook.get_codebook_entry(&indices, [2, 16, 16]);
    let exact =
        codebook.embedding().index_select(0, &raw.view([-1])).view([2, 16, 16, 4]).permute([0, 3, 1, 2]);
    let same = (back - exact).abs().amax([1], false).eq(0.); // [2, 16, 16]
    let table = vs.variables()["used"].shallow_clone();
    let known = raw.unsqueeze(-1).eq_tensor(&table).any_dim(-1, false);
    assert_eq!(same, known, "an index in use maps back to itself, another to one in use");
    assert!(!bool::try_from(known.all()).unwrap(), "the case has unknown indices");

    // A sample draws the same in any batch, and differently with another seed.
    let second = z.narrow(0, 1, 1);
    let alone = codebook.forward(&second, &mut Seeded::new([2])).indices;
    assert_eq!(alone, indices.narrow(0, 1, 1));
    assert_ne!(alone, codebook.forward(&second, &mut Seeded::new([3])).indices);
}

#[test]
fn indices_stay_integers_in_bf16() {
    let remap = Some(crate::golden("used.npy"));
    let (codebook, mut vs) = codebook(&CodebookConfig { remap, ..CodebookConfig::new(12, 4) });
    let z = randn(1, &[1, 4, 8, 8]);
    let want = codebook.forward(&z, &mut Seeded::new([2])).indices;
    vs.bfloat16();
    assert_eq!(vs.variables()["used"].kind(), Kind::Int64);
    let got = codebook.forward(&z.to_kind(Kind::BFloat16), &mut Seeded::new([2])).indices;
    let same = got.eq_tensor(&want).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    assert!(same > 0.9, "rounding changes few nearest entries, changed: {}", 1. - same);
}

#[test]
fn perplexity_and_usage_count_entries() {
    let (codebook, _vs) = codebook(&CodebookConfig::new(8, 2));
    for (indices, perplexity, entries) in [
        (vec![5_i64; 12], 1., 1.),
        ((0..16).map(|index| index % 8).collect(), 8., 8.),
        (vec![0, 0, 7, 7], 2., 2.),
        (vec![0, 0, 0, 1], 4. / 3_f64.powf(0.75), 2.),
    ] {
        let indices = Tensor::from_slice(&indices).to_device(test_device());
        let usage = codebook.usage(&indices);
        assert!((usage.perplexity.double_value(&[]) - perplexity).abs() < 1e-12, "{indices:?}");
        assert_eq!(usage.entries.double_value(&[]), entries);
    }
}

#[test]
fn entries_start_uniform() {
    let vs = VarStore::new(test_device());
    let codebook = Codebook::new(&vs.root(), &CodebookConfig::new(50, 64)).unwrap();
    let largest = codebook.embedding().abs().max().double_value(&[]);
    assert!((0.0199..=0.02).contains(&largest), "U(±1/50), largest: {largest}");
}
