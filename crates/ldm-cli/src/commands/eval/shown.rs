//! The best and the worst images.

use std::path::Path;

use anyhow::Context;
use ldm_core::image;
use serde_json::{Value, json};
use tch::{Device, Tensor};

/// ImageSet on a sheet of the best and of the worst.
const SHOWN: usize = 8;

/// An image, or several that belong together.
struct Entry {
    goodness: f64,
    name: String,
    /// One under another on the sheet.
    column: Vec<Tensor>,
}

/// The images that are best and worst by a number, which is greater for better ones.
#[derive(Default)]
pub(super) struct Shown {
    /// The worst first.
    entries: Vec<Entry>,
}

impl Shown {
    /// Sees a batch: `[B]` numbers, what each image is called, and rows of `[B, 3, H, W]`.
    pub(super) fn add(&mut self, goodness: &Tensor, names: &[String], rows: &[&Tensor]) {
        for (index, name) in (0..).zip(names) {
            let kept = |x: &&Tensor| x.get(index).to_device(Device::Cpu).copy();
            self.entries.push(Entry {
                goodness: goodness.double_value(&[index]),
                name: name.clone(),
                column: rows.iter().map(kept).collect(),
            });
        }
        self.entries.sort_by(|a, b| a.goodness.total_cmp(&b.goodness));
        // What is neither among the worst nor among the best.
        let last = self.entries.len().saturating_sub(SHOWN);
        if last > SHOWN {
            self.entries.drain(SHOWN..last);
        }
    }

    fn worst(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(SHOWN)
    }

    fn best(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev().take(SHOWN)
    }

    /// What the best and the worst are called and how good they are, those first that are most so.
    pub(super) fn names(&self) -> [Value; 2] {
        let list = |entry: &Entry| json!({"name": entry.name, "value": entry.goodness.abs()});
        [self.best().map(list).collect(), self.worst().map(list).collect()]
    }

    /// A sheet each.
    pub(super) fn write(&self, best: &Path, worst: &Path) -> anyhow::Result<()> {
        sheet(best, &self.best().collect::<Vec<_>>())?;
        sheet(worst, &self.worst().collect::<Vec<_>>())
    }
}

/// A column an entry.
fn sheet(path: &Path, entries: &[&Entry]) -> anyhow::Result<()> {
    let rows = entries.first().context("there is no image to show")?.column.len();
    let size = entries[0].column[0].size();
    if entries.iter().any(|entry| entry.column[0].size() != size) {
        return Ok(()); // a sheet needs one size
    }
    let images: Vec<&Tensor> =
        (0..rows).flat_map(|row| entries.iter().map(move |entry| &entry.column[row])).collect();
    let grid = image::grid(&Tensor::stack(&images, 0).clamp(-1., 1.), entries.len() as i64, 2);
    Ok(image::write_png(path, &grid, &[])?)
}
