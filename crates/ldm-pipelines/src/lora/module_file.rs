//! The update of one module in a LoRA file.

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use tch::Tensor;

use super::adapter::Adapter;
use super::factor_matrix::FactorMatrix;
use super::module::role;
use super::peft_metadata::PeftMetadata;
use super::read::ModuleTensors;
use super::update::{Factors, Magnitude};

/// The tensors of one module in a file.
pub(super) struct ModuleFile<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    /// The module's name in the file.
    pub(super) module: &'a str,
    /// The names of its tensors by their roles.
    pub(super) parts: &'a ModuleTensors,
}

impl ModuleFile<'_> {
    /// Reads the factors: of a LoHa or LoKr where there are any, else of a LoRA. Alpha defaults to that of the metadata,
    /// else to the rank.
    pub(super) fn factors(&self, metadata: &PeftMetadata) -> Result<Factors> {
        let any = |start: &str| self.parts.keys().any(|part| part.starts_with(start));
        let low_rank = [role::DOWN, role::UP, role::MID].iter().any(|part| self.parts.contains_key(part));
        match (any("hada_"), any("lokr_"), low_rank) {
            (true, false, false) => {
                let both = [self.matrix("hada_w1", "hada_t1")?, self.matrix("hada_w2", "hada_t2")?];
                let scale = self.scale(both[0].rank(), metadata)?;
                Ok(Factors::Hadamard(both, scale))
            }
            (false, true, false) => {
                let both = [self.matrix("lokr_w1", "lokr_t1")?, self.matrix("lokr_w2", "lokr_t2")?];
                let scale = self.scale(both[0].rank().or(both[1].rank()), metadata)?;
                Ok(Factors::Kronecker(both, scale))
            }
            (false, false, _) => self.low_rank(metadata),
            _ => Err(self.refuse("expected factors of one kind, got several")),
        }
    }

    fn low_rank(&self, metadata: &PeftMetadata) -> Result<Factors> {
        let needed = "down (A) and up (B)";
        let (down, up) = (self.tensor(role::DOWN, needed)?, self.tensor(role::UP, needed)?);
        let rank = down.size().first().copied().unwrap_or_default();
        let alpha = self.alpha(rank, metadata)?;
        if !self.parts.contains_key(role::MID) {
            return Ok(Factors::LowRank(Adapter { down, up, alpha }));
        }
        // Kernels of 1 around the core's.
        let matrix = |tensor: Tensor| if tensor.dim() > 2 { tensor.flatten(1, -1) } else { tensor };
        let core = self.tensor(role::MID, "a third factor")?;
        let tucker = FactorMatrix::Tucker { left: matrix(up), right: matrix(down), core };
        Ok(Factors::Tucker(tucker, alpha / rank as f64))
    }

    /// Reads `NAME`, or `NAME_a` and `NAME_b` with the core where there is one.
    fn matrix(&self, name: &str, core: &str) -> Result<FactorMatrix> {
        let (a, b) = (format!("{name}_a"), format!("{name}_b"));
        if self.parts.contains_key(name) {
            if let Some(more) = [&a, &b].into_iter().find(|part| self.parts.contains_key(part.as_str())) {
                return Err(self.refuse(&format!("expected {name} or its factors, got {more} too")));
            }
            return Ok(FactorMatrix::Whole(self.tensor(name, name)?));
        }
        let needed = format!("{a} and {b}");
        let (left, right) = (self.tensor(&a, &needed)?, self.tensor(&b, &needed)?);
        if !self.parts.contains_key(core) {
            return Ok(FactorMatrix::Product { left, right });
        }
        // Beside a core LyCORIS stores `[r, out]`.
        let left = if left.dim() == 2 { left.tr() } else { left };
        Ok(FactorMatrix::Tucker { left, right, core: self.tensor(core, core)? })
    }

    /// The scale `alpha/r`; 1 for whole matrices, which have no rank (LyCORIS `LokrModule`).
    fn scale(&self, rank: Option<i64>, metadata: &PeftMetadata) -> Result<f64> {
        match rank {
            Some(rank) => Ok(self.alpha(rank, metadata)? / rank as f64),
            None => Ok(1.),
        }
    }

    fn alpha(&self, rank: i64, metadata: &PeftMetadata) -> Result<f64> {
        match self.parts.get(role::ALPHA) {
            Some(name) => self.checkpoint.number(name),
            None => Ok(metadata.alpha(self.module, rank).unwrap_or(rank as f64)),
        }
    }

    /// Returns true for a DoRA.
    pub(super) fn has_magnitude(&self) -> bool {
        [role::MAGNITUDE, role::DORA_SCALE].iter().any(|part| self.parts.contains_key(part))
    }

    /// Reads the magnitudes of a DoRA for a weight of `shape`; none where there are none, or of another shape.
    pub(super) fn magnitude(&self, shape: &[i64]) -> Result<Option<Magnitude>> {
        for part in [role::MAGNITUDE, role::DORA_SCALE] {
            if let Some(name) = self.parts.get(part) {
                let values = self.checkpoint.finite(name)?;
                return Ok(Magnitude::new(&values, shape, part == role::MAGNITUDE));
            }
        }
        Ok(None)
    }

    /// The shapes of the tensors, for messages.
    pub(super) fn sizes(&self) -> String {
        let named = self.parts.iter().filter(|(part, _)| **part != role::ALPHA);
        let infos = named.filter_map(|(_, name)| self.checkpoint.info(name));
        infos.map(|info| format!("{:?}", info.shape)).collect::<Vec<_>>().join(" and ")
    }

    fn tensor(&self, part: &str, needed: &str) -> Result<Tensor> {
        match self.parts.get(part) {
            Some(name) => self.checkpoint.finite(name),
            None => Err(self.refuse(&format!("expected {needed}, got no {part}"))),
        }
    }

    fn refuse(&self, why: &str) -> Error {
        Error::format(self.checkpoint.path(), format!("`{}`: {why}", self.module))
    }
}
