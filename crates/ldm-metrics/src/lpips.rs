//! How alike two images look.

use ldm_checkpoint::{Checkpoint, KeyMap};
use ldm_core::nn::skip_init;
use ldm_core::noise::{NoiseSource, Seeded, mix};
use ldm_core::resources;
use ldm_core::{Error, Result};
use ldm_libtorch::autocast;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::vgg::{CHANNELS, SLICES, Vgg16};

/// Which network looks at the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunk {
    /// VGG16 trained on ImageNet, with the heads fitted to people's judgment (v0.1): LPIPS as published.
    Published,
    /// A fixed VGG16 that was never trained, with heads of one: sees edges and textures, knows nothing of objects.
    Random,
}

impl Trunk {
    /// How a result names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Random => "random VGG16: no published LPIPS",
        }
    }
}

/// Learned perceptual image patch similarity (Zhang et al. 2018, eq. 1), with VGG16: the distance of two images'
/// features, normalized at each place, weighted by channel, and averaged over places.
///
/// In f32 whatever autocast says: the distances of good reconstructions are differences of near equals. No parameter
/// takes a gradient. The reference's heads begin with dropout of one half, which taming-transformers leaves on in
/// training because Lightning puts every module in training mode; here there is none. The expectation is the same, and
/// a ruler that changes from one look to the next only adds noise to the gradient.
///
/// Names are taming-transformers' (`net.slice1.0.weight`, `lin0.model.1.weight`), so that the `loss.perceptual_loss.`
/// of a CompVis checkpoint fits. taming-transformers `lpips.py:11` `LPIPS`.
#[derive(Debug)]
pub struct Lpips {
    vs: VarStore,
    net: Vgg16,
    /// `[1, C, 1, 1]` each.
    heads: Vec<Tensor>,
    /// `[1, 3, 1, 1]`: to the statistics the trunk was trained with.
    shift: Tensor,
    scale: Tensor,
    trunk: Trunk,
}

/// Where `ldm weights get` puts the published weights.
const RESOURCE: &str = "lpips-vgg16";
const TRUNK_FILE: &str = "vgg16-397923af.pth";
const HEADS_FILE: &str = "vgg.pth";
/// Added to the length of a feature vector before dividing by it. taming-transformers `lpips.py:117`.
const EPS: f64 = 1e-10;

impl Lpips {
    /// The published one, from what `ldm weights get lpips-vgg16` installed: for measuring.
    ///
    /// # Errors
    /// [`Error::Io`] with the command that installs it where it is not; as [`Lpips::load`] besides.
    pub fn published(device: Device) -> Result<Self> {
        let trunk = Checkpoint::open(resources::need(RESOURCE, TRUNK_FILE)?)?;
        let heads = Checkpoint::open(resources::need(RESOURCE, HEADS_FILE)?)?;
        Self::load(trunk, heads, device)
    }

    /// The published one where it is installed, else [`Lpips::random`]: for training. [`Lpips::trunk`] says which, and
    /// whoever trains should be told.
    ///
    /// # Errors
    /// As [`Lpips::load`], when what is installed is damaged.
    pub fn published_or_random(device: Device) -> Result<Self> {
        let installed = |file| resources::find(RESOURCE, file).is_some();
        if installed(TRUNK_FILE) && installed(HEADS_FILE) {
            Self::published(device)
        } else {
            Ok(Self::random(device))
        }
    }

    /// From torchvision's VGG16 (`features.0.weight`, …; its classifier is left out) and the published heads
    /// (`lin0.model.1.weight`, …).
    ///
    /// # Errors
    /// [`Error::Weights`] listing what does not fit.
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
        // Cut off, as `load_scope` wants them; another name stays, and is refused.
        let names = (0..CHANNELS.len()).map(|head| (format!("lin{head}"), head.to_string()));
        heads.rename(&KeyMap::new(names.collect(), Vec::new())).load_scope(&lpips.vs, "lin")?;
        Ok(lpips.frozen())
    }

    /// From trunk and heads in one file, as a CompVis autoencoder's checkpoint has them below
    /// `loss.perceptual_loss.`, which the caller cuts off.
    ///
    /// # Errors
    /// [`Error::Weights`] listing what does not fit.
    pub fn from_checkpoint(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let lpips = Self::empty(device);
        // The scaling's numbers are constants of the code.
        let checkpoint = checkpoint.without(&["scaling_layer."]);
        checkpoint.load_scope(&lpips.vs, "")?;
        Ok(lpips.frozen())
    }

    /// A stand-in where the published weights cannot be had: a fixed trunk drawn from a seed of its own (He et al.
    /// 2015, so that features neither fade nor grow), the same on every machine.
    ///
    /// The published heads weigh the published trunk's channels one by one and say nothing of others, so every channel
    /// counts alike here: heads of one, which Zhang et al. 2018 compare against as the unweighted distance.
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

    /// Its weights are whatever lay in memory; nothing is drawn.
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

    /// Which network looks.
    pub fn trunk(&self) -> Trunk {
        self.trunk
    }

    /// Refuses images that the fourth pooling would leave nothing of.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the least size.
    pub fn check_size(size: [i64; 2]) -> Result<()> {
        if size.iter().all(|side| *side >= 16) {
            return Ok(());
        }
        let [height, width] = size;
        Err(Error::invalid(format!(
            "the perceptual loss needs images of at least 16x16, got: {height}x{width}"
        )))
    }

    /// The trunk's last features, averaged over places, for sets of images.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]` in `[-1, 1]`; returns `[B, 512]` f32
    pub(crate) fn deepest(&self, x: &Tensor) -> Result<Tensor> {
        let size = x.size();
        let [_, 3, height, width] = size[..] else {
            return Err(Error::Shape { what: "images".into(), expected: "[B, 3, H, W]".into(), got: size });
        };
        Self::check_size([height, width])?;
        let _exact = autocast(x.device(), Kind::Float);
        let x = x.to_device(self.vs.device()).to_kind(Kind::Float);
        tch::no_grad(|| {
            let taps = self.net.forward(&((x - &self.shift) / &self.scale));
            Ok(taps[taps.len() - 1].mean_dim([2_i64, 3].as_slice(), false, Kind::Float))
        })
    }

    /// The distance of each pair, from 0. Gradients pass to both images.
    ///
    /// # Shapes
    /// - `a`, `b`: `[B, 3, H, W]` in `[-1, 1]`, sides of at least 16
    /// - returns `[B]`, f32
    ///
    /// # Panics
    /// When the shapes are others or differ.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Tensor {
        assert_eq!(a.size(), b.size(), "images of one shape");
        let _exact = autocast(a.device(), Kind::Float);
        let features = |x: &Tensor| self.net.forward(&((x.to_kind(Kind::Float) - &self.shift) / &self.scale));
        let (a, b) = (features(a), features(b));
        let mut total = Tensor::zeros([a[0].size()[0]], (Kind::Float, a[0].device()));
        for ((a, b), head) in a.iter().zip(&b).zip(&self.heads) {
            let difference = (directions(a) - directions(b)).square(); //                  [B, C, h, w]
            // The mean over places first: a head is linear, so this is the mean of its answers.
            let each = difference.mean_dim([2, 3].as_slice(), false, Kind::Float); //      [B, C]
            total += each.matmul(&head.view([-1]));
        }
        total
    }
}

/// Feature vectors of length one.
fn directions(features: &Tensor) -> Tensor {
    // The reference's root of a sum of squares has no gradient (NaN) where all channels are zero; this norm has 0.
    let length = features.linalg_norm(2., [1].as_slice(), true, None);
    features / (length + EPS)
}
