//! Overlapping tiles of large feature maps.

use tch::{Device, Kind, Tensor};

/// The smallest and largest weight in a tile (CompVis `ddpm.py:621`, with the values of its super-resolution notebook).
const WEIGHTS: [f64; 2] = [0.01, 0.5];

/// Overlapping tiles of equal size that cover a map.
///
/// CompVis `ddpm.py:633` `get_fold_unfold` places tiles a stride apart from the left and top, and divides 0 by 0 in the
/// rest at the right and bottom; here the last tiles end where the map ends, and the others are evenly spaced between.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    size: [i64; 2],
    tile: [i64; 2],
    /// First rows, and first columns.
    starts: [Vec<i64>; 2],
    /// The smallest and largest weight of a whole tile.
    tie: Option<[f64; 2]>,
}

/// A tile of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// First row.
    pub top: i64,
    /// First column.
    pub left: i64,
    /// Number of rows.
    pub height: i64,
    /// Number of columns.
    pub width: i64,
}

impl Tile {
    /// Returns this part of `x`, `[…, h, w]`, as a view.
    pub fn of(&self, x: &Tensor) -> Tensor {
        x.narrow(-2, self.top, self.height).narrow(-1, self.left, self.width)
    }

    /// Returns the same part of a map `factor` times as large.
    #[must_use]
    pub fn scaled(&self, factor: i64) -> Self {
        Self {
            top: self.top * factor,
            left: self.left * factor,
            height: self.height * factor,
            width: self.width * factor,
        }
    }
}

impl Tiles {
    /// Places tiles of `side` x `side`, or less if the map is smaller, on a map of `[h, w]`; neighbors share at least
    /// `overlap` rows or columns.
    ///
    /// # Panics
    /// When `overlap` is not in `0..side`, or a side of the map is not positive.
    pub fn new(size: [i64; 2], side: i64, overlap: i64) -> Self {
        assert!(size[0] > 0 && size[1] > 0, "a map has pixels");
        assert!((0..side).contains(&overlap), "an overlap is less than a tile");
        let starts = size.map(|length| {
            let last = (length - side).max(0);
            let gaps = (last + side - overlap - 1) / (side - overlap);
            (0..=gaps).map(|index| if gaps == 0 { 0 } else { last * index / gaps }).collect()
        });
        Self { size, tile: size.map(|length| length.min(side)), starts, tie: None }
    }

    /// Weights each tile as a whole too, by its distance to the nearest border of the grid of tiles as a fraction of the
    /// grid's side, clamped to `tie`: tiles at the center count more where they overlap those at the border.
    ///
    /// CompVis `ddpm.py:624` `tie_braker`, with `clip_min_tie_weight` and `clip_max_tie_weight`.
    #[must_use]
    pub fn with_tie_breaker(self, tie: Option<[f64; 2]>) -> Self {
        Self { tie, ..self }
    }

    /// The factor of each tile's weights, row by row.
    fn tie_weights(&self) -> Vec<f64> {
        let [rows, columns] = [&self.starts[0], &self.starts[1]].map(|starts| starts.len() as i64);
        match self.tie {
            None => vec![1.; self.len()],
            Some(clip) => {
                let weights = weight([rows, columns], clip, Device::Cpu).to_kind(Kind::Double);
                Vec::try_from(weights.view([-1])).expect("a vector of f64")
            }
        }
    }

    /// The number of tiles.
    #[expect(clippy::len_without_is_empty, reason = "there is always a tile")]
    pub fn len(&self) -> usize {
        self.starts[0].len() * self.starts[1].len()
    }

    /// Iterates over the tiles, row by row.
    pub fn iter(&self) -> impl Iterator<Item = Tile> {
        let [height, width] = self.tile;
        self.starts[0]
            .iter()
            .flat_map(move |top| self.starts[1].iter().map(move |left| (*top, *left)))
            .map(move |(top, left)| Tile { top, left, height, width })
    }

    /// Blends the results of `run` on each tile, `factor` times as large as the tile: a weighted mean, with weights that
    /// grow from a tile's border to its center. The result of a single tile is returned as it is.
    ///
    /// # Shapes
    /// - `run` returns `[B, C, factor·height, factor·width]`; returns the same for the whole map, in the same dtype
    pub fn blend(&self, factor: i64, mut run: impl FnMut(Tile) -> Tensor) -> Tensor {
        let mut tiles = self.iter();
        let first = tiles.next().expect("there is always a tile");
        let tensor = run(first);
        if self.len() == 1 {
            return tensor;
        }
        let weight = weight(self.tile.map(|side| side * factor), WEIGHTS, tensor.device());
        let mut ties = self.tie_weights().into_iter();
        let [height, width] = self.size.map(|side| side * factor);
        let options = (Kind::Float, tensor.device());
        let mut sum = Tensor::zeros([tensor.size()[0], tensor.size()[1], height, width], options);
        let weights = Tensor::zeros([height, width], options);
        let kind = tensor.kind();
        let mut add = |tile: Tile, tensor: Tensor| {
            let place = tile.scaled(factor);
            let weight = &weight * ties.next().expect("one for each tile");
            let _ = place.of(&sum).g_add_(&(tensor.to_kind(Kind::Float) * &weight));
            let _ = place.of(&weights).g_add_(&weight);
        };
        add(first, tensor);
        tiles.for_each(|tile| add(tile, run(tile)));
        sum /= weights;
        sum.to_kind(kind)
    }
}

/// The weights of a tile, `[h, w]`: the distance to the nearest border as a fraction of the side, clamped. CompVis
/// `ddpm.py:601` `delta_border`.
fn weight(size: [i64; 2], clip: [f64; 2], device: Device) -> Tensor {
    let [down, across] = size.map(|length| {
        let from = Tensor::arange(length, (Kind::Float, device)) / (length - 1).max(1) as f64;
        from.minimum(&(1. - &from))
    });
    down.unsqueeze(1).minimum(&across.unsqueeze(0)).clamp(clip[0], clip[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_covered_and_neighbors_overlap() {
        for length in 1..70 {
            let tiles = Tiles::new([length, 9], 16, 5);
            let rows: Vec<Tile> = tiles.iter().filter(|tile| tile.left == 0).collect();
            assert_eq!((rows[0].top, rows[rows.len() - 1].top + rows[0].height), (0, length));
            assert_eq!(rows[0].height, length.min(16));
            for pair in rows.windows(2) {
                let shared = pair[0].top + 16 - pair[1].top;
                assert!((5..16).contains(&shared), "{length}: {shared}");
            }
            // No more tiles than needed.
            assert!(
                rows.len() == 1 || 16 + (rows.len() as i64 - 2) * 11 < length,
                "{length}: {}",
                rows.len()
            );
        }
        assert_eq!(Tiles::new([16, 16], 16, 8).len(), 1);
        assert_eq!(Tiles::new([17, 33], 16, 8).len(), 2 * 4);
    }

    #[test]
    fn blending_keeps_known_pixels() {
        let x = Tensor::arange(2 * 3 * 13 * 21, (Kind::Float, Device::Cpu)).view([2, 3, 13, 21]);
        for (side, overlap, factor) in [(8, 0, 1), (8, 4, 1), (5, 1, 2), (40, 3, 2)] {
            let tiles = Tiles::new([13, 21], side, overlap);
            let large = |x: Tensor| {
                x.repeat_interleave_self_int(factor, 2, None).repeat_interleave_self_int(factor, 3, None)
            };
            let got = tiles.blend(factor, |tile| large(tile.of(&x)));
            let gap = (got - large(x.shallow_clone())).abs().max().double_value(&[]);
            assert!(gap < 1e-3, "{side} {overlap} {factor}: {gap}"); // of 1600
        }
    }

    #[test]
    fn tiles_fade_into_each_other() {
        let tiles = Tiles::new([8, 24], 16, 8);
        assert_eq!(tiles.len(), 2);
        let step = tiles
            .blend(1, |tile| Tensor::full([1, 1, 8, 16], tile.left as f64 / 8., (Kind::Float, Device::Cpu)));
        let row = Vec::<f32>::try_from(step.get(0).get(0).get(4)).unwrap();
        assert!(row[..8].iter().all(|value| *value == 0.) && row[16..].iter().all(|value| *value == 1.));
        assert!(row[8..16].is_sorted() && row[8] < 0.1 && row[15] > 0.9, "{row:?}");
    }
}
