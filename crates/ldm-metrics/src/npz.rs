//! Moments in NumPy's `.npz` archives.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use ldm_core::{Error, Result, files};
use ndarray::{Array1, ArrayD, Ix1, Ix2};
use ndarray_npy::{NpzReader, NpzWriter, ReadNpyError, ReadNpzError};
use tch::{Kind, Tensor};

use crate::set_moments::Origin;
use crate::{Gaussian, SetMoments};

/// Mean and covariance of features, and of spatial features.
const NAMES: [[&str; 2]; 2] = [["mu", "sigma"], ["mu_s", "sigma_s"]];

pub(crate) fn read(path: &Path) -> Result<SetMoments> {
    let file = File::open(path).map_err(Error::io(path))?;
    let unreadable = |error: ReadNpzError| Error::format(path, format!("expected a readable .npz: {error}"));
    let mut npz = NpzReader::new(file).map_err(unreadable)?;
    let names = npz.names().map_err(unreadable)?;
    let has = |name: &str| names.iter().any(|each| each.strip_suffix(".npy").unwrap_or(each) == name);
    let pooled = gaussian(path, &mut npz, NAMES[0])?;
    let spatial = has(NAMES[1][0]).then(|| gaussian(path, &mut npz, NAMES[1])).transpose()?;
    let wrong = |name: &str, error| Error::format(path, format!("`{name}`: {error}"));
    let images: Option<Array1<i64>> =
        has("images").then(|| npz.by_name("images").map_err(|error| wrong("images", error))).transpose()?;
    let mut text = |name: &str| -> Result<Option<String>> {
        if !has(name) {
            return Ok(None);
        }
        let bytes: Array1<u8> = npz.by_name(name).map_err(|error| wrong(name, error))?;
        Ok(Some(String::from_utf8_lossy(&bytes.to_vec()).into_owned()))
    };
    let origin = Origin {
        features: text("features")?,
        images: images.and_then(|images| images.first().copied()),
        dataset: text("dataset")?,
        fingerprint: text("fingerprint")?,
    };
    Ok(SetMoments { pooled, spatial, origin })
}

/// Reads a mean and a covariance by name, f32 or f64.
fn gaussian(path: &Path, npz: &mut NpzReader<File>, names: [&str; 2]) -> Result<Gaussian> {
    let mut array = |name: &str| -> Result<ArrayD<f64>> {
        let found: std::result::Result<ArrayD<f64>, _> = npz.by_name(name);
        match found {
            Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => {
                let single: std::result::Result<ArrayD<f32>, _> = npz.by_name(name);
                single.map(|array| array.mapv(f64::from))
            }
            other => other,
        }
        .map_err(|error| Error::format(path, format!("`{name}`: expected an array of f32 or f64: {error}")))
    };
    let [mean, covariance] = [array(names[0])?, array(names[1])?];
    let shape = |name: &str, array: &ArrayD<f64>, expected: &str| {
        Error::format(path, format!("`{name}`: expected shape {expected}, got {:?}", array.shape()))
    };
    let Ok(mean) = mean.clone().into_dimensionality::<Ix1>() else {
        return Err(shape(names[0], &mean, "[D]"));
    };
    let features = mean.len();
    match covariance.clone().into_dimensionality::<Ix2>() {
        Ok(square) if square.shape() == [features; 2] => {
            let side = features as i64;
            let values: Vec<f64> = square.iter().copied().collect();
            Ok(Gaussian {
                mean: Tensor::from_slice(&mean.to_vec()),
                covariance: Tensor::from_slice(&values).view([side, side]),
            })
        }
        _ => Err(shape(
            names[1],
            &covariance,
            &format!("[{features}, {features}], by the size of `{}`", names[0]),
        )),
    }
}

pub(crate) fn write(path: &Path, moments: &SetMoments) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    archive(&mut bytes, moments)
        .map_err(|error| Error::format(path, format!("cannot be written: {error}")))?;
    files::write_bytes(path, &bytes.into_inner())
}

fn archive(
    bytes: &mut Cursor<Vec<u8>>,
    moments: &SetMoments,
) -> std::result::Result<(), ndarray_npy::WriteNpzError> {
    let array = |tensor: &Tensor| {
        let shape: Vec<usize> = tensor.size().iter().map(|side| *side as usize).collect();
        let values =
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).expect("a flat list of f64");
        ArrayD::from_shape_vec(shape, values).expect("the shape has as many values")
    };
    let mut npz = NpzWriter::new(bytes);
    for ([mean, covariance], gaussian) in
        NAMES.into_iter().zip([Some(&moments.pooled), moments.spatial.as_ref()])
    {
        if let Some(gaussian) = gaussian {
            npz.add_array(mean, &array(&gaussian.mean))?;
            npz.add_array(covariance, &array(&gaussian.covariance))?;
        }
    }
    let origin = &moments.origin;
    if let Some(images) = origin.images {
        npz.add_array("images", &Array1::from_elem(1, images))?;
    }
    let texts =
        [("features", &origin.features), ("dataset", &origin.dataset), ("fingerprint", &origin.fingerprint)];
    for (name, text) in texts {
        if let Some(text) = text {
            npz.add_array(name, &Array1::from(text.clone().into_bytes()))?;
        }
    }
    npz.finish().map(drop)
}
