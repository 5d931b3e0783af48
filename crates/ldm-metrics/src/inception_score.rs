//! The Inception score.

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::MeanStd;

/// exp E KL(p(y|x) ‖ p(y)) of a classifier on generated images (Salimans et al. 2016, §4), for each of `splits` consecutive
/// parts of the set; papers report mean and deviation over 10.
///
/// The published deviation divides by the number of parts, `MeanStd`'s by one less.
///
/// # Shapes
/// - `logits`: `[N, classes]`, before the softmax
///
/// # Errors
/// [`Error::Invalid`] if there are fewer images than parts; [`Error::Shape`] for another shape.
pub fn inception_score(logits: &Tensor, splits: i64) -> Result<MeanStd> {
    let size = logits.size();
    let [count, _] = size[..] else {
        return Err(Error::Shape { what: "logits".into(), expected: "[N, classes]".into(), got: size });
    };
    if splits < 1 || count < splits {
        return Err(Error::invalid(format!(
            "splits: expected 1 to {count}, the number of images, got {splits}"
        )));
    }
    let log_p = logits.detach().to_kind(Kind::Double).log_softmax(1, Kind::Double);
    let mut scores = MeanStd::new();
    for split in 0..splits {
        let (start, end) = (split * count / splits, (split + 1) * count / splits);
        let log_p = log_p.narrow(0, start, end - start);
        let p = log_p.exp();
        let log_q = p.mean_dim([0_i64].as_slice(), true, Kind::Double).log();
        // p·log p is 0 at p = 0.
        let terms = (&p * (&log_p - log_q)).where_self(&p.gt(0.), &p.zeros_like());
        scores.add(&terms.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double).mean(Kind::Double).exp());
    }
    Ok(scores)
}
