//! Conditioning dropout, to train for classifier-free guidance.

use ldm_core::{Error, NoiseSource, Prompt, Result};
use tch::{Device, Kind, Tensor};

use crate::Conditioner;

/// Replaces the prompt of a sample by the null prompt with some probability, so that one network learns both halves of
/// classifier-free guidance (Ho & Salimans 2022, algorithm 1). CompVis has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptDropout {
    probability: f64,
}

impl PromptDropout {
    /// Creates dropout with the given probability.
    ///
    /// # Errors
    /// If it is not in `[0, 1]`.
    pub fn new(probability: f64) -> Result<Self> {
        if (0. ..=1.).contains(&probability) {
            Ok(Self { probability })
        } else {
            Err(Error::invalid(format!(
                "conditioning dropout: expected a probability in [0, 1], got {probability}"
            )))
        }
    }

    /// Drops prompts of a batch by one uniform number per sample for all inputs: class, text, tokens and embedding become
    /// those of the null prompt if it has them. With probability 0, or if no input would change, nothing is drawn.
    ///
    /// # Errors
    /// If the conditioner has no null prompt, or the number of tokens differs from the null prompt's.
    pub fn apply(
        &self,
        conditioner: &dyn Conditioner,
        prompt: Prompt,
        noise: &mut dyn NoiseSource,
    ) -> Result<Prompt> {
        let Some(batch) = prompt.batch().filter(|_| self.probability > 0.) else { return Ok(prompt) };
        let null = conditioner.null_like(&prompt)?;
        let both =
            |slot: fn(&Prompt) -> &Option<Tensor>| slot(&prompt).as_ref().filter(|_| slot(&null).is_some());
        let slots: [fn(&Prompt) -> &Option<Tensor>; 3] = [|p| &p.class, |p| &p.tokens, |p| &p.embedding];
        let tensor = slots.into_iter().find_map(both);
        let text = prompt.text.is_some() && null.text.is_some();
        if tensor.is_none() && !text {
            return Ok(prompt);
        }
        let place =
            tensor.map_or_else(|| Tensor::empty([0], (Kind::Float, Device::Cpu)), Tensor::shallow_clone);
        let dropped = noise.uniform(batch, &place).lt(self.probability); // [B]
        Ok(Prompt {
            text: replace_texts(prompt.text, null.text, &dropped)?,
            class: replace("class", prompt.class, null.class, &dropped)?,
            tokens: replace("tokens", prompt.tokens, null.tokens, &dropped)?,
            embedding: replace("embedding", prompt.embedding, null.embedding, &dropped)?,
            ..prompt
        })
    }
}

/// Takes `null` where `dropped` is true; without a null nothing changes.
fn replace(
    what: &str,
    given: Option<Tensor>,
    null: Option<Tensor>,
    dropped: &Tensor,
) -> Result<Option<Tensor>> {
    let (given, null) = match (given, null) {
        (Some(given), Some(null)) => (given, null),
        (given, _) => return Ok(given),
    };
    if null.size() != given.size() {
        let expected = format!("{:?}, as the null prompt", null.size());
        return Err(Error::Shape { what: what.into(), expected, got: given.size() });
    }
    let mut size = vec![1; given.dim()];
    size[0] = -1;
    let null = null.to_device(given.device()).to_kind(given.kind());
    Ok(Some(null.where_self(&dropped.to_device(given.device()).view(size.as_slice()), &given)))
}

fn replace_texts(
    given: Option<Vec<String>>,
    null: Option<Vec<String>>,
    dropped: &Tensor,
) -> Result<Option<Vec<String>>> {
    let (given, null) = match (given, null) {
        (Some(given), Some(null)) => (given, null),
        (given, _) => return Ok(given),
    };
    let dropped = Vec::<bool>::try_from(&dropped.to_device(Device::Cpu))?;
    let choose = |((given, null), dropped)| if dropped { null } else { given };
    Ok(Some(given.into_iter().zip(null).zip(dropped).map(choose).collect()))
}
