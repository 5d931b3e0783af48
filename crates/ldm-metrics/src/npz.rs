//! Moments in NumPy's archives.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use ldm_core::{Error, Result, files};
use ndarray::{ArrayD, Ix1, Ix2};
use ndarray_npy::{NpzReader, NpzWriter, ReadNpyError, ReadNpzError};
use tch::{Kind, Tensor};

use crate::Gaussian;

/// Reads a mean and a covariance by name, f32 or f64.
pub(crate) fn read(path: &Path, names: [&str; 2]) -> Result<Gaussian> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut npz =
        NpzReader::new(file).map_err(|error| Error::format(path, format!("not a readable .npz: {error}")))?;
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
        _ => Err(shape(names[1], &covariance, &format!("[{features}, {features}], as `{}` says", names[0]))),
    }
}

/// Writes `mu` and `sigma`.
pub(crate) fn write(path: &Path, gaussian: &Gaussian) -> Result<()> {
    let array = |tensor: &Tensor| {
        let shape: Vec<usize> = tensor.size().iter().map(|side| *side as usize).collect();
        let values =
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).expect("a flat list of f64");
        ArrayD::from_shape_vec(shape, values).expect("as many values as the shape says")
    };
    let mut bytes = Cursor::new(Vec::new());
    let mut npz = NpzWriter::new(&mut bytes);
    let written = npz
        .add_array("mu", &array(&gaussian.mean))
        .and_then(|()| npz.add_array("sigma", &array(&gaussian.covariance)))
        .and_then(|()| npz.finish().map(|_| ()));
    written.map_err(|error| Error::format(path, format!("cannot be written: {error}")))?;
    files::write_bytes(path, &bytes.into_inner())
}
