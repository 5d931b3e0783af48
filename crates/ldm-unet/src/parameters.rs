//! Names and shapes of parameters, without tensors.

use std::fmt::Display;

use tch::Tensor;
use tch::nn::Path;

use crate::conv_nd::ConvSizes;

/// A list of names and shapes in the order in which CompVis registers its parameters.
#[derive(Debug, Default)]
pub(crate) struct ParameterNames {
    prefix: String,
    list: Vec<(String, Vec<i64>)>,
}

impl ParameterNames {
    pub(crate) fn into_list(self) -> Vec<(String, Vec<i64>)> {
        self.list
    }

    /// Adds the parameters of `fill` under `name.`.
    pub(crate) fn within(&mut self, name: impl Display, fill: impl FnOnce(&mut Self)) {
        let outer = self.prefix.len();
        self.prefix.push_str(&name.to_string());
        self.prefix.push('.');
        fill(self);
        self.prefix.truncate(outer);
    }

    pub(crate) fn add(&mut self, name: &str, shape: &[i64]) {
        self.list.push((format!("{}{name}", self.prefix), shape.to_vec()));
    }

    fn weight_and_bias(&mut self, name: impl Display, shape: &[i64]) {
        self.within(name, |list| {
            list.add("weight", shape);
            list.add("bias", &shape[..1]);
        });
    }

    pub(crate) fn norm(&mut self, name: impl Display, channels: i64) {
        self.weight_and_bias(name, &[channels]);
    }

    pub(crate) fn linear(&mut self, name: impl Display, features_in: i64, features_out: i64) {
        self.weight_and_bias(name, &[features_out, features_in]);
    }

    pub(crate) fn conv1d(&mut self, name: impl Display, channels_in: i64, channels_out: i64) {
        self.weight_and_bias(name, &[channels_out, channels_in, 1]);
    }

    pub(crate) fn conv2d(&mut self, name: impl Display, channels_in: i64, channels_out: i64, kernel: i64) {
        self.conv(name, ConvSizes { dims: 2, channels_in, channels_out, kernel });
    }

    pub(crate) fn conv(&mut self, name: impl Display, sizes: ConvSizes) {
        let mut shape = vec![sizes.channels_out, sizes.channels_in];
        shape.resize(2 + sizes.dims as usize, sizes.kernel);
        self.weight_and_bias(name, &shape);
    }

    /// Looks up the listed parameters among the layers already built at `vs`.
    pub(crate) fn find(self, vs: &Path) -> Vec<Tensor> {
        let handle = |name: &str| {
            let mut parts: Vec<&str> = name.split('.').collect();
            let leaf = parts.pop().expect("split gives at least one part");
            let owner = parts.into_iter().fold(vs.clone(), |path, part| path / part);
            owner.get(leaf).unwrap_or_else(|| panic!("a listed parameter does not exist: {name}"))
        };
        self.list.iter().map(|(name, _)| handle(name)).collect()
    }
}
