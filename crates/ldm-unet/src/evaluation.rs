//! Options of one evaluation of the U-Net.

use tch::Tensor;

use crate::control_net::ControlResiduals;

/// Options of [`UNet::evaluate`](crate::UNet::evaluate), each without effect by default.
#[derive(Debug, Default)]
pub struct Evaluation<'a> {
    /// Residuals of ControlNets.
    pub control: Option<&'a ControlResiduals>,
    /// Features that several evaluations share.
    pub deep: Option<DeepFeatures<'a>>,
    /// Share of the tokens, 0 to 1, that are merged around the self-attention of the largest maps with transformers; at
    /// most three quarters are.
    ///
    /// Token merging (Bolya & Hoffman 2023, arXiv:2303.17604).
    pub merged_tokens: f64,
}

/// DeepCache (Ma, Fang & Wang 2023, arXiv:2312.00858, §3.2): the input of the last `depth` up blocks, reused.
#[derive(Debug)]
pub struct DeepFeatures<'a> {
    /// From 1 to below [`UNet::depth`](crate::UNet::depth).
    pub depth: usize,
    /// None is filled. Any other one is taken as it is, so that all but the first `depth` down blocks and the last `depth` up
    /// blocks are left out.
    pub features: &'a mut Option<Tensor>,
}
