//! Latents of VQ first stages as ids of codebook entries.

use ldm_autoencoder::Codebook;
use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::Model;

impl Model {
    fn codebook(&self) -> Result<&Codebook> {
        self.first_stage()
            .codebook()
            .ok_or_else(|| Error::invalid("ids: expected a VQ first stage, got one without a codebook"))
    }

    /// Computes the ids of the codebook entries nearest to unscaled latents; with `remap` its renumbered ids.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`; returns `[B, h, w]` i64
    ///
    /// # Errors
    /// [`Error::Invalid`] for a first stage without a codebook.
    pub fn codebook_ids(&self, z: &Tensor) -> Result<Tensor> {
        let codebook = self.codebook()?;
        let size = z.size();
        let mut noise = PerStep::new(0, 0, 0);
        let found = tch::no_grad(|| codebook.forward(z, &mut noise).indices);
        Ok(found.view([size[0], size[2], size[3]]))
    }

    /// Looks up codebook entries as unscaled latents.
    ///
    /// # Shapes
    /// - `ids`: `[B, h, w]` integers, or `[B, K, h, w]` scores of the K entries, of which the highest is taken, as
    ///   CompVis' `predict_cids` (`ddpm.py:706`); returns `[B, C, h, w]`
    ///
    /// # Errors
    /// [`Error::Invalid`] for a first stage without a codebook and for ids beyond it; [`Error::Shape`] for other shapes.
    pub fn codebook_entries(&self, ids: &Tensor) -> Result<Tensor> {
        let codebook = self.codebook()?;
        let count = codebook.index_count();
        let ids = match ids.size()[..] {
            [_, entries, _, _] if entries == count => ids.argmax(1, false),
            [batch, height, width] if batch * height * width > 0 => ids.to_kind(Kind::Int64),
            _ => {
                let expected = format!("[B, h, w] ids or [B, {count}, h, w] scores");
                return Err(Error::Shape { what: "ids".into(), expected, got: ids.size() });
            }
        };
        let (low, high) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
        if low < 0 || high >= count {
            let got = if low < 0 { low } else { high };
            return Err(Error::invalid(format!("ids: expected 0 to {}, got {got}", count - 1)));
        }
        let size = ids.size();
        let ids = ids.to_device(codebook.embedding().device());
        Ok(tch::no_grad(|| codebook.get_codebook_entry(&ids, [size[0], size[1], size[2]])))
    }
}
