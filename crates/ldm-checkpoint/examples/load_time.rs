//! Times loading of the networks that `docs/tools/parity/load_time.py make FOLDER` wrote; see there.

#![allow(missing_docs, clippy::print_stdout)] // an example prints its result

use std::path::{Path, PathBuf};
use std::time::Instant;

use ldm_checkpoint::Checkpoint;
use ldm_core::nn::{skip_init, variable};
use ldm_core::{Result, device};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind};

/// The networks' files, in the order of the Python program.
const FILES: [&str; 3] = [
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("FOLDER [f32|f16|bf16]"));
    let dtype = arguments.next().unwrap_or_else(|| "f32".into());
    let kind = device::parse_dtype(&dtype)?;
    for file in FILES {
        std::io::copy(
            &mut std::fs::File::open(folder.join(file)).expect("a folder made by load_time.py"),
            &mut std::io::sink(),
        )
        .expect("a file that can be read");
    }
    for _ in 0..3 {
        let start = Instant::now();
        let stores: Vec<VarStore> =
            FILES.iter().map(|file| load(&folder.join(file), kind)).collect::<Result<_>>()?;
        let loaded = start.elapsed().as_secs_f64();
        // Touches every page: a mapped one is not read yet.
        let step = 4096 / kind.elt_size_in_bytes() as i64;
        for variable in stores.iter().flat_map(|store| store.variables().into_values()) {
            let _ = variable.detach().view(-1).slice(0, None, None, step).sum(Kind::Float);
        }
        let touched = start.elapsed().as_secs_f64();
        stores.iter().for_each(ldm_libtorch::channels_last);
        let converted = start.elapsed().as_secs_f64();
        println!(
            r#"{{"loader": "ldm", "dtype": "{dtype}", "loaded_s": {loaded:.3}, "and_touched_s": {touched:.3}, "and_channels_last_s": {converted:.3}}}"#
        );
    }
    println!(r#"{{"peak_bytes": {}}}"#, ldm_libtorch::peak_resident_bytes());
    Ok(())
}

/// Loads the file into a store of its names and shapes, which stands in for a model's constructor.
fn load(path: &Path, kind: Kind) -> Result<VarStore> {
    let checkpoint = Checkpoint::open(path)?;
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(kind);
    skip_init(|| {
        for name in checkpoint.names() {
            let (modules, leaf) = name.rsplit_once('.').unwrap_or(("", name));
            let modules = modules.split('.').filter(|module| !module.is_empty());
            let path = modules.fold(vs.root(), |path, module| path / module);
            let shape = checkpoint.info(name).expect("a name of the file").shape;
            let _ = variable(&path, leaf, &shape, Init::Const(0.));
        }
    });
    checkpoint.load_mmap(&mut vs)?;
    Ok(vs)
}
