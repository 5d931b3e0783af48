//! Merging of similar tokens around self-attention.

use tch::{Kind, Tensor};

/// The norm below which a token has no direction.
const LEAST_NORM: f64 = 1e-12;

/// Tokens of a map, of which similar ones are merged: ToMe (Bolya & Hoffman 2023, arXiv:2303.17604, §4).
///
/// The top-left token of each 2x2 window is a destination. The other tokens with the greatest cosine similarity to one are
/// merged into it: to their mean. As tomesd 0.1.3 with `use_rand=False`, whose random destinations would depend on the batch.
#[derive(Debug)]
pub(crate) struct MergedTokens {
    /// Row of each token among the merged ones of all images: `[B·N]`.
    row: Tensor,
    /// Tokens of each merged one: `[B·(N - merged), 1]`.
    sizes: Tensor,
    /// Merged tokens of an image.
    count: i64,
}

impl MergedTokens {
    /// Selects `share` of the tokens `[B, N, C]` of a map of `[height, width]`, at most all that are no destination.
    pub(crate) fn new(tokens: &Tensor, [height, width]: [i64; 2], share: f64) -> Self {
        let options = (Kind::Int64, tokens.device());
        let whole = |side: i64| side / 2 * 2;
        let every = Tensor::arange(height * width, options);
        let grid = every.view([height, width]);
        let to = grid.slice(0, 0, whole(height), 2).slice(1, 0, whole(width), 2).flatten(0, -1);
        let is_destination = Tensor::zeros_like(&every).index_fill(0, &to, 1);
        let from = is_destination.eq(0).nonzero().squeeze_dim(1);
        let (destinations, others) = (to.size()[0], from.size()[0]);
        let merged = ((height * width) as f64 * share) as i64;
        let merged = if destinations == 0 { 0 } else { merged.min(others) };
        let count = height * width - merged;

        let tokens = tokens.to_kind(Kind::Float);
        let directions =
            &tokens / tokens.norm_scalaropt_dim(2, [-1_i64].as_slice(), true).clamp_min(LEAST_NORM);
        // Products of one image each: with those of a batch, an image could get other bytes than alone.
        let rows = directions.unbind(0).into_iter().enumerate().map(|(image, directions)| {
            let mut row = Tensor::zeros_like(&every);
            let _ = row.index_put_(&[Some(&to)], &Tensor::arange(destinations, options), false);
            let order = if merged == 0 {
                Tensor::arange(others, options)
            } else {
                let similarity = directions.index_select(0, &from).mm(&directions.index_select(0, &to).tr());
                let (greatest, nearest) = similarity.max_dim(1, false);
                let order = greatest.argsort_stable(true, 0, true);
                let chosen = order.narrow(0, 0, merged);
                let nearest = nearest.index_select(0, &chosen);
                let _ = row.index_put_(&[Some(from.index_select(0, &chosen))], &nearest, false);
                order
            };
            let kept = from.index_select(0, &order.narrow(0, merged, others - merged));
            let _ = row.index_put_(&[Some(kept)], &Tensor::arange_start(destinations, count, options), false);
            row + image as i64 * count
        });
        let row = Tensor::cat(&rows.collect::<Vec<_>>(), 0);
        let sizes = row.bincount(None::<Tensor>, 0).unsqueeze(1);
        Self { row, sizes, count }
    }

    /// Replaces tokens that belong together by their mean: `[B, N, C]` to `[B, N - merged, C]`.
    pub(crate) fn merge(&self, tokens: &Tensor) -> Tensor {
        let (batch, _, channels) = tokens.size3().expect("[B, N, C]");
        let rows = tokens.to_kind(Kind::Float).view([-1, channels]);
        let index = self.row.unsqueeze(1).expand_as(&rows);
        let sums = Tensor::zeros([batch * self.count, channels], (Kind::Float, tokens.device()));
        let means = sums.scatter_add(0, &index, &rows) / &self.sizes;
        means.to_kind(tokens.kind()).view([batch, self.count, channels])
    }

    /// Gives each token the value of the one it was merged into: `[B, N - merged, C]` to `[B, N, C]`.
    pub(crate) fn unmerge(&self, merged: &Tensor) -> Tensor {
        let (batch, _, channels) = merged.size3().expect("[B, N, C]");
        merged.reshape([-1, channels]).index_select(0, &self.row).view([batch, -1, channels])
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn random(size: [i64; 3]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn equal_tokens_are_merged_without_loss() {
        // Each 2x2 window of one value: three quarters of the tokens are equal to their destination.
        let windows = random([2, 5, 12]).view([2, 5, 3, 1, 4, 1]).expand([2, 5, 3, 2, 4, 2], false);
        let tokens = windows.reshape([2, 5, 48]).transpose(1, 2).contiguous();
        let merged = MergedTokens::new(&tokens, [6, 8], 0.75);
        let means = merged.merge(&tokens);
        assert_eq!(means.size(), [2, 12, 5]);
        assert!(f64::try_from((merged.unmerge(&means) - &tokens).abs().max()).unwrap() < 1e-6);
    }

    #[test]
    fn a_share_of_the_tokens_is_merged_and_the_mean_is_kept() {
        for (size, share, count) in
            [([6, 8], 0., 48), ([6, 8], 0.5, 24), ([5, 7], 0.5, 18), ([4, 4], 0.99, 4), ([1, 9], 0.5, 9)]
        {
            let tokens = random([3, size[0] * size[1], 4]);
            let merged = MergedTokens::new(&tokens, size, share);
            let means = merged.merge(&tokens);
            assert_eq!(means.size(), [3, count, 4], "{size:?}");
            let unmerged = merged.unmerge(&means);
            let difference =
                (unmerged.mean_dim(1, false, None) - tokens.mean_dim(1, false, None)).abs().max();
            assert!(f64::try_from(difference).unwrap() < 1e-5, "{size:?}: each mean stands for its tokens");
        }
    }

    #[test]
    fn an_image_alone_is_merged_as_in_a_batch() {
        let tokens = random([3, 64, 16]);
        let both = MergedTokens::new(&tokens, [8, 8], 0.5).merge(&tokens);
        for image in 0..3 {
            let tokens = tokens.narrow(0, image, 1);
            let alone = MergedTokens::new(&tokens, [8, 8], 0.5).merge(&tokens);
            assert_eq!(alone, both.narrow(0, image, 1));
        }
    }
}
