//! Class images beside instance images, for prior preservation (DreamBooth, Ruiz et al. 2023).

use std::sync::Arc;

use ldm_core::{Error, Result};

use crate::dataset::{Dataset, Peek, fingerprint};
use crate::example::Example;
use crate::rng::Rng;

/// Instance images, each of which is followed in its batch by a class image: batches of `2B` examples, half of either.
///
/// diffusers' `train_dreambooth.py` puts the instances first and takes class images in turn; here the two alternate, so that
/// ranks share the noise of a step, and the seed draws the class image.
pub struct PriorPreservation {
    instances: Arc<dyn Dataset>,
    class_images: Arc<dyn Dataset>,
    passed_over: Vec<String>,
}

impl PriorPreservation {
    /// Joins instance images and class images.
    ///
    /// # Errors
    /// [`Error::Data`] when there are no class images, or when only one set has captions.
    pub fn new(instances: Arc<dyn Dataset>, class_images: Arc<dyn Dataset>) -> Result<Self> {
        if class_images.is_empty() {
            return Err(Error::data(class_images.name(), "expected class images, got none"));
        }
        let captions = |set: &Arc<dyn Dataset>| set.peek(0).map(|peek| peek.caption.is_some());
        // The loader reports images that cannot be read.
        if let (Ok(of_instances), Ok(of_class)) = (captions(&instances), captions(&class_images))
            && of_instances != of_class
        {
            let without = if of_instances { &class_images } else { &instances };
            return Err(Error::data(
                without.name(),
                "expected captions of instance and class images, got none here; try captions: {text: a prompt}",
            ));
        }
        let passed_over = [instances.passed_over(), class_images.passed_over()].concat();
        Ok(Self { instances, class_images, passed_over })
    }
}

impl Dataset for PriorPreservation {
    fn len(&self) -> usize {
        self.instances.len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        self.instances.get(index, seed)
    }

    fn companion(&self, index: usize, seed: u64) -> Result<Option<Example>> {
        let mut rng = Rng::of(&[seed, index as u64, 2]);
        let drawn = rng.below(self.class_images.len() as u64) as usize;
        self.class_images.get(drawn, rng.bits()).map(Some)
    }

    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        self.instances.without_image(index, seed)
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        self.instances.peek(index)
    }

    fn classes(&self) -> &[String] {
        self.instances.classes()
    }

    fn box_classes(&self) -> &[String] {
        self.instances.box_classes()
    }

    fn label_classes(&self) -> &[String] {
        self.instances.label_classes()
    }

    fn check_labels(&self, count: i64) -> Result<usize> {
        Ok(self.instances.check_labels(count)? + self.class_images.check_labels(count)?)
    }

    fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        self.instances.shards_by_rank()
    }

    fn weights(&self) -> Option<&[f64]> {
        self.instances.weights()
    }

    fn name(&self) -> String {
        self.instances.name()
    }

    fn fingerprint(&self) -> String {
        let parts = [&self.instances, &self.class_images].map(Dataset::fingerprint);
        fingerprint("prior preservation 1", &parts, [])
    }
}
