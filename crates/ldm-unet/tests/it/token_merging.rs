//! Token merging against tomesd over CompVis' U-Net (`golden/generate_token_merging.py`).

use ldm_core::Conditioning;
use ldm_core::device::test_device;
use ldm_testing::{Golden, assert_close, fill_weights};
use ldm_unet::{Evaluation, UNet, UNetConfig};
use serde::Deserialize;
use tch::nn::VarStore;

#[derive(Deserialize)]
struct Case {
    seed: u64,
    config: UNetConfig,
    share: f64,
}

#[test]
fn merged_tokens_equal_those_of_tomesd() {
    let golden = Golden::open(crate::golden("token_merging.safetensors"), test_device());
    let cases: std::collections::BTreeMap<String, Case> =
        serde_json::from_str(golden.metadata("cases")).expect("the cases of the script");
    assert_eq!(cases.len(), 4);
    for (name, case) in cases {
        let vs = VarStore::new(test_device());
        let unet = UNet::new(&vs.root(), &case.config).unwrap();
        fill_weights(&vs, case.seed);
        for channels_last in [false, true] {
            if channels_last {
                ldm_libtorch::channels_last(&vs);
            }
            let get = |part: &str| golden.get(&format!("{name}.{part}"));
            let cond =
                Conditioning { context: Some(get("context").shallow_clone()), ..Conditioning::default() };
            let y = tch::no_grad(|| {
                let options = Evaluation { merged_tokens: case.share, ..Evaluation::default() };
                unet.evaluate(get("x"), get("t"), &unet.precompute(&cond), options)
            });
            assert_close(&name, &y, get("y"), 1e-5);
        }
    }
}
