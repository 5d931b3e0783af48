//! Moments in NumPy's `.npz` archives.

use std::path::Path;

use ldm_checkpoint::{Npz, save_npz};
use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::set_moments::Origin;
use crate::{Gaussian, SetMoments};

/// Mean and covariance of features, and of spatial features.
const NAMES: [[&str; 2]; 2] = [["mu", "sigma"], ["mu_s", "sigma_s"]];
/// The most bytes of a text about the set.
const TEXT: i64 = 64 << 10;

pub(crate) fn read(path: &Path) -> Result<SetMoments> {
    let npz = Npz::open(path)?;
    let pooled = gaussian(&npz, NAMES[0])?;
    let spatial = npz.contains(NAMES[1][0]).then(|| gaussian(&npz, NAMES[1])).transpose()?;
    let text = |name: &str| -> Result<Option<String>> {
        let Some(bytes) = list(&npz, name, Kind::Uint8, TEXT)? else { return Ok(None) };
        let bytes = Vec::<u8>::try_from(&bytes).expect("a flat list of u8");
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let numbers = |name: &str, most: i64| -> Result<Option<Vec<i64>>> {
        let list = list(&npz, name, Kind::Int64, most)?;
        Ok(list.map(|list| Vec::<i64>::try_from(&list).expect("a flat list of i64")))
    };
    let origin = Origin {
        features: text("features")?,
        images: numbers("images", 1)?.and_then(|images| images.first().copied()),
        size: numbers("size", 2)?.and_then(|size| size.try_into().ok()),
        resizer: text("resizer")?,
        dataset: text("dataset")?,
        fingerprint: text("fingerprint")?,
    };
    Ok(SetMoments { pooled, spatial, origin })
}

/// Reads an optional array of one axis and at most `most` elements.
fn list(npz: &Npz, name: &str, kind: Kind, most: i64) -> Result<Option<Tensor>> {
    if !npz.contains(name) {
        return Ok(None);
    }
    let info = npz.info(name)?;
    if info.kind != kind || info.shape.len() != 1 || info.shape[0] > most {
        let (shape, found) = (&info.shape, info.kind);
        let why = format!("`{name}`: expected shape [n ≤ {most}] of {kind:?}, got {shape:?} of {found:?}");
        return Err(Error::format(npz.path(), why));
    }
    npz.array(name).map(Some)
}

/// Reads a mean and a covariance by name, f32 or f64.
fn gaussian(npz: &Npz, [mean, covariance]: [&str; 2]) -> Result<Gaussian> {
    let refuse = |name: &str, expected: &str, got: String| {
        Error::format(npz.path(), format!("`{name}`: expected {expected}, got {got}"))
    };
    let shapes = [npz.info(mean)?, npz.info(covariance)?];
    for (name, info) in [mean, covariance].into_iter().zip(&shapes) {
        if !matches!(info.kind, Kind::Float | Kind::Double) {
            return Err(refuse(name, "an array of f32 or f64", format!("{:?}", info.kind)));
        }
    }
    let [features] = *shapes[0].shape else {
        return Err(refuse(mean, "shape [D]", format!("{:?}", shapes[0].shape)));
    };
    if features == 0 {
        return Err(refuse(mean, "at least one feature", "none".into()));
    }
    if shapes[1].shape != [features; 2] {
        let expected = format!("shape [{features}, {features}], by the size of `{mean}`");
        return Err(refuse(covariance, &expected, format!("{:?}", shapes[1].shape)));
    }
    let array = |name: &str| -> Result<Tensor> {
        let array = npz.array(name)?.to_kind(Kind::Double);
        if array.isfinite().all().int64_value(&[]) == 0 {
            return Err(refuse(name, "finite numbers", "NaN or Inf".into()));
        }
        Ok(array)
    };
    Ok(Gaussian { mean: array(mean)?, covariance: array(covariance)? })
}

pub(crate) fn write(path: &Path, moments: &SetMoments) -> Result<()> {
    let mut arrays = Vec::new();
    let gaussians = [Some(&moments.pooled), moments.spatial.as_ref()];
    for ([mean, covariance], gaussian) in NAMES.into_iter().zip(gaussians) {
        if let Some(gaussian) = gaussian {
            arrays.push((mean.to_owned(), gaussian.mean.to_kind(Kind::Double)));
            arrays.push((covariance.to_owned(), gaussian.covariance.to_kind(Kind::Double)));
        }
    }
    let origin = &moments.origin;
    if let Some(images) = origin.images {
        arrays.push(("images".into(), Tensor::from_slice(&[images])));
    }
    if let Some(size) = origin.size {
        arrays.push(("size".into(), Tensor::from_slice(&size)));
    }
    let texts = [
        ("features", &origin.features),
        ("dataset", &origin.dataset),
        ("fingerprint", &origin.fingerprint),
        ("resizer", &origin.resizer),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            arrays.push((name.into(), Tensor::from_slice(text.as_bytes())));
        }
    }
    save_npz(path, &arrays)
}
