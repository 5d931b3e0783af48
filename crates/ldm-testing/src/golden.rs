//! Golden files and comparisons of tensors.

use std::collections::BTreeMap;
use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A golden file: inputs, weights and outputs made by CompVis' or another implementation, and what it was made with.
#[derive(Debug)]
pub struct Golden {
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Golden {
    /// Reads a safetensors file, its tensors moved to `device`.
    ///
    /// # Panics
    /// When the file is missing or damaged: the test that needs it has failed.
    pub fn open(path: impl AsRef<Path>, device: Device) -> Self {
        let path = path.as_ref();
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, head) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors file");
        let metadata = head.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let size: Vec<i64> = view.shape().iter().map(|each| *each as i64).collect();
                let tensor = Tensor::from_data_size(view.data(), &size, kind_of(view.dtype()));
                (name, tensor.to_device(device))
            })
            .collect();
        Self { tensors, metadata }
    }

    /// The tensor `name`.
    ///
    /// # Panics
    /// When the file has none.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the golden file has no tensor `{name}`"))
    }

    /// Returns true when there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Tensors whose names start with `prefix`, the prefix cut off, in the order of their names.
    pub fn scope(&self, prefix: &str) -> Vec<(String, Tensor)> {
        let cut = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.shallow_clone()))
        };
        self.tensors.iter().filter_map(cut).collect()
    }

    /// The metadata entry `key`.
    ///
    /// # Panics
    /// When the file has none.
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata.get(key).unwrap_or_else(|| panic!("the golden file has no metadata `{key}`"))
    }

    /// Copies the tensors `weights.*` into `vs`: every name and shape must fit both ways.
    ///
    /// # Panics
    /// When one does not.
    pub fn load_weights(&self, vs: &VarStore) {
        let mut given: BTreeMap<String, Tensor> = self.scope("weights.").into_iter().collect();
        tch::no_grad(|| {
            for (name, mut variable) in vs.variables() {
                let value =
                    given.remove(&name).unwrap_or_else(|| panic!("the golden file lacks weight `{name}`"));
                assert_eq!(variable.size(), value.size(), "shape of `{name}`");
                variable.copy_(&value);
            }
        });
        assert!(given.is_empty(), "weights the model lacks: {:?}", given.keys());
    }
}

fn kind_of(dtype: safetensors::Dtype) -> Kind {
    use safetensors::Dtype;
    match dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => panic!("golden files hold no {other:?}"),
    }
}

/// Fills every parameter by a formula that the generator scripts compute too (`golden_weights.py`), so that a
/// golden file of a larger model need not hold its weights. Nothing stays zero.
///
/// Parameter number `k` of the sorted names has in place `i` the value `u = frac(sin((i+1)·12.9898 + (k+1)·78.233 +
/// seed·37.719)·43758.5453)`, taken to `v = 2u − 1` and scaled by its role: `1.2 v/√fan_in` for matrices and
/// kernels, `1 + 0.1 v` for other `weight`s, `0.1 v` for the rest.
pub fn fill_weights(vs: &VarStore, seed: u64) {
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    tch::no_grad(|| {
        for (k, (name, mut variable)) in variables.into_iter().enumerate() {
            let size = variable.size();
            let count = variable.numel();
            let offset = (k as f64 + 1.) * 78.233 + seed as f64 * 37.719;
            let (scale, shift) = match size.len() {
                0 | 1 => (0.1, if name.ends_with("weight") { 1. } else { 0. }),
                _ => (1.2 / (count as f64 / size[0] as f64).sqrt(), 0.),
            };
            let values: Vec<f32> = (0..count)
                .map(|i| {
                    let x = ((i as f64 + 1.) * 12.9898 + offset).sin() * 43_758.545_3;
                    (shift + scale * (2. * (x - x.floor()) - 1.)) as f32
                })
                .collect();
            variable.copy_(&Tensor::from_slice(&values).view(size.as_slice()));
        }
    });
}

/// Tensors of these names and shapes with the weights that [`fill_weights`] gives them: another implementation's file.
pub fn filled(shapes: &BTreeMap<String, Vec<i64>>, seed: u64) -> Vec<(String, Tensor)> {
    let vs = VarStore::new(Device::Cpu);
    for (name, shape) in shapes {
        let mut parts: Vec<&str> = name.split('.').collect();
        let leaf = parts.pop().expect("split gives at least one part");
        let owner = parts.into_iter().fold(vs.root(), |path, part| path / part);
        let _ = owner.zeros_no_train(leaf, shape);
    }
    fill_weights(&vs, seed);
    vs.variables().into_iter().collect()
}

/// ‖got − want‖ / ‖want‖, in f64.
pub fn relative_l2(got: &Tensor, want: &Tensor) -> f64 {
    let (got, want) = (got.to_kind(Kind::Double), want.to_device(got.device()).to_kind(Kind::Double));
    let scale = want.norm().double_value(&[]).max(f64::MIN_POSITIVE);
    (got - want).norm().double_value(&[]) / scale
}

/// Asserts equal shapes and a relative L2 distance of at most `tolerance`; says the worst element otherwise.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{what}: shape");
    let distance = relative_l2(got, want);
    if distance <= tolerance {
        return;
    }
    let got = got.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1);
    let want = want.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1);
    let worst = (&got - &want).abs().argmax(0, false).int64_value(&[]);
    panic!(
        "{what}: relative L2 {distance:.3e} > {tolerance:.0e}; worst at flat index {worst}: got {}, want {}",
        got.double_value(&[worst]),
        want.double_value(&[worst]),
    );
}
