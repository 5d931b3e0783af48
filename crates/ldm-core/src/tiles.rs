//! Large maps in overlapping tiles.

use tch::{Device, Kind, Tensor};

/// The least and the greatest weight in a tile (CompVis `ddpm.py:621`, with the values of its super-resolution notebook).
const WEIGHTS: [f64; 2] = [0.01, 0.5];

/// A map's tiles: of one size, overlapping, over all of it.
///
/// CompVis `ddpm.py:633` `get_fold_unfold`, whose tiles stand a stride apart from the left and top, and leave what is
/// left over at the right and bottom to a division of 0 by 0; here the last ones end where the map ends, and the others
/// are spread evenly between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiles {
    size: [i64; 2],
    tile: [i64; 2],
    /// Where they begin: down, and across.
    starts: [Vec<i64>; 2],
}

/// A part of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Its first row.
    pub top: i64,
    /// Its first column.
    pub left: i64,
    /// Rows.
    pub height: i64,
    /// Columns.
    pub width: i64,
}

impl Tile {
    /// This part of `x`, `[…, h, w]`: a view.
    pub fn of(&self, x: &Tensor) -> Tensor {
        x.narrow(-2, self.top, self.height).narrow(-1, self.left, self.width)
    }
}

impl Tiles {
    /// Tiles of `side` x `side`, or less where the map is smaller, of a map of `[h, w]`; neighbors share at least
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
        Self { size, tile: size.map(|length| length.min(side)), starts }
    }

    /// How many.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.starts[0].len() * self.starts[1].len()
    }

    /// Each of them, row by row.
    pub fn iter(&self) -> impl Iterator<Item = Tile> {
        let [height, width] = self.tile;
        self.starts[0]
            .iter()
            .flat_map(move |top| self.starts[1].iter().map(move |left| (*top, *left)))
            .map(move |(top, left)| Tile { top, left, height, width })
    }

    /// Joins what `of` makes of each tile, `factor` times as large as it: a mean with the weights that grow from a
    /// tile's border to its middle. A single tile is what `of` made.
    ///
    /// # Shapes
    /// - `of` returns `[B, C, factor·height, factor·width]`; so is the result, of the whole map, of the same dtype
    pub fn blend(&self, factor: i64, mut of: impl FnMut(Tile) -> Tensor) -> Tensor {
        let mut tiles = self.iter();
        let first = tiles.next().expect("there is always one");
        let made = of(first);
        if self.len() == 1 {
            return made;
        }
        let weight = weight(self.tile.map(|side| side * factor), made.device());
        let [height, width] = self.size.map(|side| side * factor);
        let options = (Kind::Float, made.device());
        let mut sum = Tensor::zeros([made.size()[0], made.size()[1], height, width], options);
        let weights = Tensor::zeros([height, width], options);
        let kind = made.kind();
        let add = |tile: Tile, made: Tensor| {
            let place = Tile {
                top: tile.top * factor,
                left: tile.left * factor,
                height: tile.height * factor,
                width: tile.width * factor,
            };
            let _ = place.of(&sum).g_add_(&(made.to_kind(Kind::Float) * &weight));
            let _ = place.of(&weights).g_add_(&weight);
        };
        add(first, made);
        tiles.for_each(|tile| add(tile, of(tile)));
        sum /= weights;
        sum.to_kind(kind)
    }
}

/// `[h, w]`: the distance to the nearest border, in shares of the side, between the bounds. CompVis `ddpm.py:601`
/// `delta_border`.
fn weight(size: [i64; 2], device: Device) -> Tensor {
    let [down, across] = size.map(|length| {
        let from = Tensor::arange(length, (Kind::Float, device)) / (length - 1).max(1) as f64;
        from.minimum(&(1. - &from))
    });
    down.unsqueeze(1).minimum(&across.unsqueeze(0)).clamp(WEIGHTS[0], WEIGHTS[1])
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
            // No more of them than are needed.
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
    fn what_is_known_of_each_pixel_is_kept() {
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
