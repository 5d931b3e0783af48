//! Learned perceptual image patch similarity (LPIPS).

use ldm_checkpoint::{Checkpoint, KeyMap};
use ldm_core::nn::skip_init;
use ldm_core::noise::{NoiseSource, Seeded, mix};
use ldm_core::resources;
use ldm_core::{Error, Result};
use ldm_libtorch::{autocast, tf32_scope};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::vgg::{CHANNELS, SLICES, Vgg16};

/// The network of the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunk {
    /// VGG16 trained on ImageNet, with heads fitted to human judgments (v0.1): LPIPS as published.
    Published,
    /// A fixed untrained VGG16 with heads of one: sensitive to edges and textures, not to objects.
    Random,
}

impl Trunk {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Random => "random VGG16: no published LPIPS",
        }
    }
}

/// Learned perceptual image patch similarity (Zhang et al. 2018, eq. 1), with VGG16: the distance of two images'
/// features, normalized at each position, weighted by channel, and averaged over positions.
///
/// In f32 even under autocast, and without TF32: distances of good reconstructions are differences of nearly equal numbers.
/// No parameter takes a gradient. Its heads begin with dropout of 0.5, which is active in taming-transformers' training, as
/// Lightning puts every module in training mode; here there is none. The expectation is the same, without the noise in
/// the gradient.
///
/// Names are taming-transformers' (`net.slice1.0.weight`, `lin0.model.1.weight`), so that the `loss.perceptual_loss.`
/// of a CompVis checkpoint loads. taming-transformers `lpips.py:11` `LPIPS`.
#[derive(Debug)]
pub struct Lpips {
    vs: VarStore,
    net: Vgg16,
    /// `[1, C, 1, 1]` each.
    heads: Vec<Tensor>,
    /// `[1, 3, 1, 1]`: normalization by the statistics of the training set of the trunk.
    shift: Tensor,
    scale: Tensor,
    trunk: Trunk,
}

/// Name and files of the published weights in `ldm weights get`.
const RESOURCE: &str = "lpips-vgg16";
const TRUNK_FILE: &str = "vgg16-397923af.pth";
const HEADS_FILE: &str = "vgg.pth";
/// Added to the length of a feature vector before dividing by it. taming-transformers `lpips.py:117`.
const EPS: f64 = 1e-10;

impl Lpips {
    /// Loads the published weights installed by `ldm weights get lpips-vgg16`, for evaluation.
    ///
    /// # Errors
    /// [`Error::Io`] with the command that installs them, if they are not installed; else as [`Lpips::load`].
    pub fn published(device: Device) -> Result<Self> {
        let trunk = Checkpoint::open(resources::need(RESOURCE, TRUNK_FILE)?)?;
        let heads = Checkpoint::open(resources::need(RESOURCE, HEADS_FILE)?)?;
        Self::load(trunk, heads, device)
    }

    /// Loads the published weights if installed, else [`Lpips::random`], for training. Callers should report
    /// [`Lpips::trunk`].
    ///
    /// # Errors
    /// As [`Lpips::load`], if an installed file is damaged.
    pub fn published_or_random(device: Device) -> Result<Self> {
        let installed = |file| resources::find(RESOURCE, file).is_some();
        if installed(TRUNK_FILE) && installed(HEADS_FILE) {
            Self::published(device)
        } else {
            Ok(Self::random(device))
        }
    }

    /// Loads torchvision's VGG16 (`features.0.weight`, …, without its classifier) and the published heads
    /// (`lin0.model.1.weight`, …).
    ///
    /// # Errors
    /// [`Error::Weights`] with every mismatch.
    pub fn load(trunk: Checkpoint, heads: Checkpoint, device: Device) -> Result<Self> {
        let lpips = Self::empty(device);
        let names = SLICES.iter().enumerate().flat_map(|(slice, layers)| {
            let name = move |layer: &(usize, i64, i64)| {
                (format!("features.{}", layer.0), format!("slice{}.{}", slice + 1, layer.0))
            };
            layers.iter().map(name)
        });
        let names = KeyMap::new(names.collect(), Vec::new());
        trunk.without(&["classifier."]).rename(&names).load_scope(&lpips.vs, "net.")?;
        // Without the prefix, for `load_scope`; other names remain, and are an error.
        let names = (0..CHANNELS.len()).map(|head| (format!("lin{head}"), head.to_string()));
        heads.rename(&KeyMap::new(names.collect(), Vec::new())).load_scope(&lpips.vs, "lin")?;
        Ok(lpips.frozen())
    }

    /// Loads trunk and heads from one file, as in a CompVis autoencoder's checkpoint below `loss.perceptual_loss.`, a
    /// prefix that the caller strips.
    ///
    /// # Errors
    /// [`Error::Weights`] with every mismatch.
    pub fn from_checkpoint(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let lpips = Self::empty(device);
        // The constants of the scaling are in the code.
        let checkpoint = checkpoint.without(&["scaling_layer."]);
        checkpoint.load_scope(&lpips.vs, "")?;
        Ok(lpips.frozen())
    }

    /// Creates a substitute for the published weights: a fixed random trunk, the same on every machine (He et al. 2015
    /// initialization, so that features neither vanish nor grow).
    ///
    /// The published heads weight the channels of the published trunk only, so here every channel has weight one, the
    /// unweighted distance of Zhang et al. 2018.
    pub fn random(device: Device) -> Self {
        let lpips = Self { trunk: Trunk::Random, ..Self::empty(device) };
        let mut variables: Vec<(String, Tensor)> = lpips.vs.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        tch::no_grad(|| {
            for (index, (name, mut variable)) in variables.into_iter().enumerate() {
                if name.starts_with("lin") {
                    let _ = variable.fill_(1.);
                } else if name.ends_with("bias") {
                    let _ = variable.zero_();
                } else {
                    let fan_in = variable.size()[1..].iter().product::<i64>() as f64;
                    let flat = variable.view([1, -1]);
                    let drawn = Seeded::new([mix(0, &[index as u64])]).like(&flat) * (2. / fan_in).sqrt();
                    variable.copy_(&drawn.view(variable.size().as_slice()));
                }
            }
        });
        lpips.frozen()
    }

    /// Builds the network with uninitialized weights; no random numbers are drawn.
    fn empty(device: Device) -> Self {
        let vs = VarStore::new(device);
        let root = vs.root();
        let net = skip_init(|| Vgg16::new(&(&root / "net")));
        let head = |(head, channels): (usize, &i64)| {
            (&root / format!("lin{head}") / "model" / 1).zeros("weight", &[1, *channels, 1, 1])
        };
        let heads = CHANNELS.iter().enumerate().map(head).collect();
        let three = |values: [f32; 3]| Tensor::from_slice(&values).to_device(device).view([1, 3, 1, 1]);
        // taming-transformers `lpips.py:56`, PerceptualSimilarity `lpips.py:134`.
        let (shift, scale) = (three([-0.030, -0.088, -0.188]), three([0.458, 0.448, 0.450]));
        Self { vs, net, heads, shift, scale, trunk: Trunk::Published }
    }

    fn frozen(mut self) -> Self {
        self.vs.freeze();
        self
    }

    /// Returns the trunk.
    pub fn trunk(&self) -> Trunk {
        self.trunk
    }

    /// Checks that images are large enough for the fourth pooling.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the minimal size.
    pub fn check_size(size: [i64; 2]) -> Result<()> {
        if size.iter().all(|side| *side >= 16) {
            return Ok(());
        }
        let [height, width] = size;
        Err(Error::invalid(format!(
            "image: expected at least 16x16 for the perceptual loss, got {height}x{width}"
        )))
    }

    /// Computes the last features of the trunk, averaged over positions, for sets of images.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]` in `[-1, 1]`; returns `[B, 512]` f32
    pub(crate) fn deepest(&self, x: &Tensor) -> Result<Tensor> {
        let size = x.size();
        let [_, 3, height, width] = size[..] else {
            return Err(Error::Shape { what: "images".into(), expected: "[B, 3, H, W]".into(), got: size });
        };
        Self::check_size([height, width])?;
        let _exact = (autocast(x.device(), Kind::Float), tf32_scope(false));
        let x = x.to_device(self.vs.device()).to_kind(Kind::Float);
        tch::no_grad(|| {
            let taps = self.net.forward(&((x - &self.shift) / &self.scale));
            Ok(taps[taps.len() - 1].mean_dim([2_i64, 3].as_slice(), false, Kind::Float))
        })
    }

    /// Computes the distance of each pair, at least 0. Gradients flow to both images.
    ///
    /// # Shapes
    /// - `a`, `b`: `[B, 3, H, W]` in `[-1, 1]`, sides of at least 16
    /// - returns `[B]`, f32
    ///
    /// # Panics
    /// If the shapes are invalid or differ.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Tensor {
        assert_eq!(a.size(), b.size(), "expected images of equal shape");
        let _exact = (autocast(a.device(), Kind::Float), tf32_scope(false));
        let features = |x: &Tensor| self.net.forward(&((x.to_kind(Kind::Float) - &self.shift) / &self.scale));
        let (a, b) = (features(a), features(b));
        let mut total = Tensor::zeros([a[0].size()[0]], (Kind::Float, a[0].device()));
        for ((a, b), head) in a.iter().zip(&b).zip(&self.heads) {
            let difference = (normalized(a) - normalized(b)).square(); //                  [B, C, h, w]
            // The mean over positions first: heads are linear.
            let each = difference.mean_dim([2, 3].as_slice(), false, Kind::Float); //      [B, C]
            total += each.matmul(&head.view([-1]));
        }
        total
    }
}

/// Scales feature vectors to unit length.
fn normalized(features: &Tensor) -> Tensor {
    // The gradient of CompVis' root of a sum of squares is NaN if all channels are zero; that of this norm is 0.
    let length = features.linalg_norm(2., [1].as_slice(), true, None);
    features / (length + EPS)
}
