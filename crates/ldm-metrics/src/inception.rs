//! Inception-v3, the network of FID.

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use ldm_core::nn::skip_init;
use ldm_core::resources;
use ldm_libtorch::tf32_scope;
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::frozen_batch_norm::{FrozenBatchNorm, check_images, load_frozen};
use crate::inception_plan::{Branch, BranchPool, Unit, blocks};

/// Name and file of the weights in `ldm weights get`.
pub(crate) const RESOURCE: &str = "fid-inception";
pub(crate) const FILE: &str = "pt_inception-2015-12-05-6726825d.pth";
/// Side of the input of the network.
const SIDE: i64 = 299;
const CLASSES: i64 = 1008;
/// The block whose first branch is the TensorFlow graph's `mixed_6/conv`, and how many of its channels sFID takes.
const SPATIAL_BLOCK: &str = "Mixed_6d";
const SPATIAL_CHANNELS: i64 = 7;

/// Inception-v3 (Szegedy et al. 2016) as in TensorFlow's graph of 2015-12-05, which defines FID, KID and the Inception
/// score. In f32; no parameter takes a gradient.
///
/// Names are those of pytorch-fid's file, `Mixed_5b.branch1x1.conv.weight`.
#[derive(Debug)]
pub struct Inception {
    vs: VarStore,
    stem: [Conv; 5],
    blocks: Vec<(&'static str, Vec<BranchLayers>)>,
    /// `[1008, 2048]`, without bias, as in the graph's output before the softmax.
    head: Tensor,
}

/// Features of images by Inception.
#[derive(Debug)]
pub struct InceptionFeatures {
    /// `[B, 2048]` f32, of FID and KID.
    pub pooled: Tensor,
    /// `[B, 2023]` f32, of sFID (Nash et al. 2021, §4.1): the first seven channels of `mixed_6/conv` at its 17x17 positions,
    /// channels last, as in ADM's reference statistics. guided-diffusion `evaluator.py:599`.
    pub spatial: Tensor,
    /// `[B, 1008]` f32, of the Inception score, without the bias of the last layer.
    pub logits: Tensor,
}

/// Convolution, batch norm in inference mode, ReLU.
#[derive(Debug)]
struct Conv {
    kernel: Tensor,
    norm: FrozenBatchNorm,
    stride: i64,
    padding: [i64; 2],
}

/// A [`Branch`] with its weights.
#[derive(Debug)]
struct BranchLayers {
    pool: BranchPool,
    units: Vec<Conv>,
    fork: Vec<Conv>,
}

impl Conv {
    fn new(vs: &Path, channels: i64, unit: Unit, padding: [i64; 2]) -> Self {
        let (name, out, [height, width], stride) = unit;
        let layer = vs / name;
        Self {
            kernel: (&layer / "conv").var("weight", &[out, channels, height, width], Init::Const(0.)),
            norm: FrozenBatchNorm::new(&(&layer / "bn"), out),
            stride,
            padding,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.conv2d(&self.kernel, None::<Tensor>, [self.stride; 2], self.padding, [1, 1], 1);
        self.norm.forward(&x).relu_()
    }
}

impl BranchLayers {
    /// Builds the branch on `channels`; returns its output channels.
    fn new(vs: &Path, mut channels: i64, branch: &Branch) -> (Self, i64) {
        let same = |unit: &Unit| if unit.3 == 1 { unit.2.map(|side| side / 2) } else { [0, 0] };
        let mut units = Vec::new();
        for unit in &branch.units {
            units.push(Conv::new(vs, channels, *unit, same(unit)));
            channels = unit.1;
        }
        let fork: Vec<Conv> =
            branch.fork.iter().map(|unit| Conv::new(vs, channels, *unit, same(unit))).collect();
        let channels = if fork.is_empty() { channels } else { branch.fork.iter().map(|unit| unit.1).sum() };
        (Self { pool: branch.pool, units, fork }, channels)
    }

    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let x = match self.pool {
            BranchPool::None => x.shallow_clone(),
            BranchPool::Mean => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>),
            BranchPool::Max => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
            BranchPool::Half => halved(x),
        };
        let x = self.units.iter().fold(x, |x, unit| unit.forward(&x));
        if self.fork.is_empty() { vec![x] } else { self.fork.iter().map(|unit| unit.forward(&x)).collect() }
    }
}

impl Inception {
    /// Loads the weights installed by `ldm weights get fid-inception`.
    ///
    /// # Errors
    /// [`Error::Io`](ldm_core::Error::Io) with the command that installs it, if it is not installed; else as [`Inception::load`].
    pub fn published(device: Device) -> Result<Self> {
        Self::load(Checkpoint::open(resources::need(RESOURCE, FILE)?)?, device)
    }

    /// Loads pytorch-fid's file, or torch-fidelity's, which has the same names.
    ///
    /// # Errors
    /// [`Error::Weights`](ldm_core::Error::Weights) with every mismatch.
    pub fn load(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let mut inception = skip_init(|| Self::empty(device));
        load_frozen(&mut inception.vs, checkpoint, &["fc.bias"])?;
        Ok(inception)
    }

    fn empty(device: Device) -> Self {
        let vs = VarStore::new(device);
        let root = vs.root();
        let stem = [
            (3, ("Conv2d_1a_3x3", 32, [3, 3], 2), [0, 0]),
            (32, ("Conv2d_2a_3x3", 32, [3, 3], 1), [0, 0]),
            (32, ("Conv2d_2b_3x3", 64, [3, 3], 1), [1, 1]),
            (64, ("Conv2d_3b_1x1", 80, [1, 1], 1), [0, 0]),
            (80, ("Conv2d_4a_3x3", 192, [3, 3], 1), [0, 0]),
        ]
        .map(|(channels, unit, padding)| Conv::new(&root, channels, unit, padding));
        let mut channels = 192;
        let blocks = blocks()
            .iter()
            .map(|(name, branches)| {
                let block = &root / *name;
                let branches: Vec<(BranchLayers, i64)> =
                    branches.iter().map(|branch| BranchLayers::new(&block, channels, branch)).collect();
                channels = branches.iter().map(|(_, channels)| channels).sum();
                (*name, branches.into_iter().map(|(branch, _)| branch).collect())
            })
            .collect();
        let head = (&root / "fc").var("weight", &[CLASSES, channels], Init::Const(0.));
        Self { vs, stem, blocks, head }
    }

    /// Computes features of images, rounded to 8 bits and resized as in TensorFlow 1; without TF32.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`, of any size
    ///
    /// # Errors
    /// [`Error::Shape`](ldm_core::Error::Shape) for another shape.
    pub fn features(&self, images: &Tensor) -> Result<InceptionFeatures> {
        check_images(images)?;
        let _full = tf32_scope(false);
        let x = crate::pixel::eight_bit(&images.to_device(self.vs.device())).to_kind(Kind::Float);
        tch::no_grad(|| {
            let mut x = (resized(&x) - 128.) / 128.;
            for (index, conv) in self.stem.iter().enumerate() {
                x = conv.forward(&x);
                // After the third and the fifth layer.
                if index == 2 || index == 4 {
                    x = halved(&x);
                }
            }
            let mut spatial = None;
            for (name, branches) in &self.blocks {
                let parts: Vec<Tensor> = branches.iter().flat_map(|branch| branch.forward(&x)).collect();
                if *name == SPATIAL_BLOCK {
                    let first = parts[0].narrow(1, 0, SPATIAL_CHANNELS); //      [B, 7, 17, 17]
                    spatial = Some(first.permute([0, 2, 3, 1]).flatten(1, -1)); // [B, 2023]
                }
                x = Tensor::cat(&parts, 1);
            }
            let spatial = spatial.expect("the block is one of them");
            let pooled = x.mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
            let logits = pooled.matmul(&self.head.tr());
            Ok(InceptionFeatures { pooled, spatial, logits })
        })
    }
}

/// 3x3 max pooling of stride 2.
fn halved(x: &Tensor) -> Tensor {
    x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false)
}

/// Bilinear resizing to 299 x 299 as in TensorFlow 1: pixel i samples at i·(side/299), without half-pixel centers, which
/// shifts the image slightly to the upper left.
fn resized(x: &Tensor) -> Tensor {
    let along = |x: Tensor, dim: i64| {
        let length = x.size()[dim as usize];
        let at = Tensor::arange(SIDE, (Kind::Float, x.device())) * (length as f64 / SIDE as f64);
        let low = at.floor();
        let mut shape = [1; 4];
        shape[dim as usize] = SIDE;
        let share = (&at - &low).view(shape);
        let low = low.to_kind(Kind::Int64);
        let high = (&low + 1).clamp_max(length - 1);
        let (low, high) = (x.index_select(dim, &low), x.index_select(dim, &high));
        &low + (high - &low) * share
    };
    along(along(x.shallow_clone(), 3), 2)
}
