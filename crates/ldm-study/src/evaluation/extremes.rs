//! The best and the worst images of a set.

use std::path::Path;

use ldm_core::{Error, Result, image};
use serde::Serialize;
use tch::{Device, Tensor};

/// Images on a sheet of the best and of the worst.
const SHOWN: usize = 8;

/// An image, or several that belong together.
#[derive(Debug)]
struct RankedImage {
    goodness: f64,
    name: String,
    /// Images of one column of the sheet.
    column: Vec<Tensor>,
}

/// The name of an image, and its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedValue {
    /// The name.
    pub name: String,
    /// The value.
    #[serde(serialize_with = "ldm_core::json::float::serialize")]
    pub value: f64,
}

/// The best and the worst images by a value that is greater for better ones.
#[derive(Debug, Default)]
pub struct Extremes {
    /// From worst to best.
    entries: Vec<RankedImage>,
}

impl Extremes {
    /// Adds a batch: values `[B]`, the names of the images, and rows of images `[B, 3, H, W]`.
    pub(super) fn add(&mut self, goodness: &Tensor, names: &[String], rows: &[&Tensor]) {
        for (index, name) in (0..).zip(names) {
            let copied = |x: &&Tensor| x.get(index).to_device(Device::Cpu).copy();
            self.entries.push(RankedImage {
                goodness: goodness.double_value(&[index]),
                name: name.clone(),
                column: rows.iter().map(copied).collect(),
            });
        }
        self.entries.sort_by(|a, b| a.goodness.total_cmp(&b.goodness));
        // Neither among the worst nor among the best.
        let last = self.entries.len().saturating_sub(SHOWN);
        if last > SHOWN {
            self.entries.drain(SHOWN..last);
        }
    }

    fn worst(&self) -> impl Iterator<Item = &RankedImage> {
        self.entries.iter().take(SHOWN)
    }

    fn best(&self) -> impl Iterator<Item = &RankedImage> {
        self.entries.iter().rev().take(SHOWN)
    }

    /// Returns names and values of the best and of the worst images, the most extreme first.
    pub fn names(&self) -> [Vec<NamedValue>; 2] {
        let list = |entry: &RankedImage| NamedValue { name: entry.name.clone(), value: entry.goodness.abs() };
        [self.best().map(list).collect(), self.worst().map(list).collect()]
    }

    /// Writes a sheet of the best and one of the worst.
    ///
    /// # Errors
    /// When there are no images, or a file cannot be written.
    pub fn write(&self, best: &Path, worst: &Path) -> Result<()> {
        sheet(best, &self.best().collect::<Vec<_>>())?;
        sheet(worst, &self.worst().collect::<Vec<_>>())
    }
}

/// Writes a sheet with a column per entry.
fn sheet(path: &Path, entries: &[&RankedImage]) -> Result<()> {
    let first = entries.first().ok_or_else(|| Error::invalid("expected at least one image"))?;
    let rows = first.column.len();
    let size = entries[0].column[0].size();
    if entries.iter().any(|entry| entry.column[0].size() != size) {
        return Ok(()); // a sheet needs images of one size
    }
    let images: Vec<&Tensor> =
        (0..rows).flat_map(|row| entries.iter().map(move |entry| &entry.column[row])).collect();
    let grid = image::grid(&Tensor::stack(&images, 0).clamp(-1., 1.), entries.len() as i64, 2);
    image::write_png(path, &grid, &[])
}
