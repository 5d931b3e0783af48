//! EfficientNet-lite0, a small network trained on ImageNet.

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use ldm_core::nn::skip_init;
use ldm_core::resources;
use ldm_libtorch::tf32_scope;
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::frozen_batch_norm::{FrozenBatchNorm, check_images, load_frozen};

/// Name and file of the weights in `ldm weights get`.
pub(crate) const RESOURCE: &str = "efficientnet-lite0";
pub(crate) const FILE: &str = "efficientnet-lite0-57934424.pth";
/// Side of the input of the network.
const SIDE: i64 = 224;
/// Channels of the stem, and of the features.
const STEM: i64 = 32;
const FEATURES: i64 = 1280;
/// Blocks of one kind: their number, the side of the kernel, the stride of the first, expansion, and channels.
/// TensorFlow's `efficientnet_lite_builder.py`, without squeeze and excitation.
const STAGES: [(i64, i64, i64, i64, i64); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

/// EfficientNet-lite0 (Tan & Le 2019, arXiv:1905.11946, in TensorFlow's version for small devices), up to the mean of its
/// last features. In f32; no parameter takes a gradient.
///
/// Names are those of the Python package efficientnet-lite-pytorch, `_blocks.3._depthwise_conv.weight`.
#[derive(Debug)]
pub struct EfficientNet {
    vs: VarStore,
    stem: ConvNorm,
    blocks: Vec<InvertedBottleneck>,
    head: ConvNorm,
}

/// Convolution and batch norm in inference mode.
#[derive(Debug)]
struct ConvNorm {
    kernel: Tensor,
    norm: FrozenBatchNorm,
    stride: i64,
    groups: i64,
}

/// 1x1 expansion, depthwise convolution, 1x1 projection, and a residual connection where shapes allow.
#[derive(Debug)]
struct InvertedBottleneck {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    project: ConvNorm,
    residual: bool,
}

impl ConvNorm {
    /// `names` are those of the convolution and the norm; `shape` is that of the kernel.
    fn new(vs: &Path, names: [&str; 2], shape: [i64; 4], stride: i64, groups: i64) -> Self {
        Self {
            kernel: (vs / names[0]).var("weight", &shape, Init::Const(0.)),
            norm: FrozenBatchNorm::new(&(vs / names[1]), shape[0]),
            stride,
            groups,
        }
    }

    /// With TensorFlow's `SAME` padding of even maps: at stride 2 one more below and to the right.
    fn forward(&self, x: &Tensor) -> Tensor {
        let total = self.kernel.size()[2] - self.stride;
        let (low, high) = (total / 2, total - total / 2);
        let x = if low == high { x.shallow_clone() } else { x.zero_pad2d(low, high, low, high) };
        let padding = if low == high { low } else { 0 };
        let x = x.conv2d(&self.kernel, None::<Tensor>, [self.stride; 2], [padding; 2], [1, 1], self.groups);
        self.norm.forward(&x)
    }
}

impl InvertedBottleneck {
    fn new(vs: &Path, channels: i64, expansion: i64, kernel: i64, stride: i64, out: i64) -> Self {
        let wide = channels * expansion;
        Self {
            expand: (expansion > 1)
                .then(|| ConvNorm::new(vs, ["_expand_conv", "_bn0"], [wide, channels, 1, 1], 1, 1)),
            depthwise: ConvNorm::new(
                vs,
                ["_depthwise_conv", "_bn1"],
                [wide, 1, kernel, kernel],
                stride,
                wide,
            ),
            project: ConvNorm::new(vs, ["_project_conv", "_bn2"], [out, wide, 1, 1], 1, 1),
            residual: stride == 1 && channels == out,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let wide = match &self.expand {
            Some(expand) => expand.forward(x).relu6(),
            None => x.shallow_clone(),
        };
        let y = self.project.forward(&self.depthwise.forward(&wide).relu6());
        if self.residual { y + x } else { y }
    }
}

impl EfficientNet {
    /// Loads the weights installed by `ldm weights get efficientnet-lite0`.
    ///
    /// # Errors
    /// [`Error::Io`](ldm_core::Error::Io) with the command that installs it, if it is not installed; else as [`EfficientNet::load`].
    pub fn published(device: Device) -> Result<Self> {
        Self::load(Checkpoint::open(resources::need(RESOURCE, FILE)?)?, device)
    }

    /// Loads the file of the Python package.
    ///
    /// # Errors
    /// [`Error::Weights`](ldm_core::Error::Weights) with every mismatch.
    pub fn load(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let mut net = skip_init(|| Self::empty(device));
        load_frozen(&mut net.vs, checkpoint, &["_fc.weight", "_fc.bias"])?; // the classifier
        Ok(net)
    }

    fn empty(device: Device) -> Self {
        let vs = VarStore::new(device);
        let root = vs.root();
        let (mut channels, mut blocks) = (STEM, Vec::new());
        for (count, kernel, stride, expansion, out) in STAGES {
            for index in 0..count {
                let stride = if index == 0 { stride } else { 1 };
                let path = &root / "_blocks" / blocks.len();
                blocks.push(InvertedBottleneck::new(&path, channels, expansion, kernel, stride, out));
                channels = out;
            }
        }
        let stem = ConvNorm::new(&root, ["_conv_stem", "_bn0"], [STEM, 3, 3, 3], 2, 1);
        let head = ConvNorm::new(&root, ["_conv_head", "_bn1"], [FEATURES, channels, 1, 1], 1, 1);
        Self { vs, stem, blocks, head }
    }

    /// Computes features of images: rounded to 8 bits, resized to 224x224 with antialiasing, and scaled as in TensorFlow,
    /// (x − 127) / 128. Without TF32.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`, of any size
    /// - returns `[B, 1280]` f32
    ///
    /// # Errors
    /// [`Error::Shape`](ldm_core::Error::Shape) for another shape.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        check_images(images)?;
        let _full = tf32_scope(false);
        let x = crate::pixel::eight_bit(&images.to_device(self.vs.device())).to_kind(Kind::Float);
        tch::no_grad(|| {
            let x = x.internal_upsample_bilinear2d_aa([SIDE, SIDE], false, None, None);
            let x = self.stem.forward(&((x - 127.) / 128.)).relu6();
            let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
            let x = self.head.forward(&x).relu6();
            Ok(x.mean_dim([2_i64, 3].as_slice(), false, Kind::Float))
        })
    }
}
