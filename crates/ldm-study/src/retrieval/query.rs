//! Queries of a database by text or image.

use std::path::{Path, PathBuf};

use ldm_conditioning::Clip;
use ldm_core::{Prompt, Result, image};
use ldm_data::{Rng, Transform, TransformConfig};
use ldm_retrieval::{EmbeddingIndex, Neighbor, Search, context};
use serde::Serialize;
use tch::Tensor;

use crate::Reporter;
use crate::context::Context;

/// Texts, or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetrievalQuery {
    /// Texts, each a query.
    Texts(Vec<String>),
    /// The image of a file, one query.
    Image(PathBuf),
}

impl RetrievalQuery {
    /// The query of an image, if there is one, else of a text.
    pub fn new(text: Option<&str>, image: Option<&Path>) -> Self {
        image.map_or_else(
            || Self::Texts(text.into_iter().map(Into::into).collect()),
            |path| Self::Image(path.to_path_buf()),
        )
    }
}

/// A neighbor of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedNeighbor {
    /// Name of the image.
    pub name: String,
    /// Cosine of the angle between the embeddings, in `[-1, 1]`.
    pub score: f64,
}

/// CLIP and, with neighbors, a database and their number.
#[derive(Debug)]
pub struct Retriever {
    clip: Clip,
    database: Option<(EmbeddingIndex, usize, Search)>,
}

impl Retriever {
    /// Embeds queries alone.
    pub fn new(clip: Clip) -> Self {
        Self { clip, database: None }
    }

    /// Opens the database of which each query gets its `k` nearest neighbors.
    ///
    /// # Errors
    /// Those of [`EmbeddingIndex::open`], and [`ldm_core::Error::Format`] when another CLIP made it.
    pub fn with_database(self, path: &Path, k: usize, search: Search) -> Result<Self> {
        let database = EmbeddingIndex::open(path)?;
        database.check_clip(&self.clip.fingerprint(), self.clip.width() as usize)?;
        Ok(Self { database: Some((database, k, search)), ..self })
    }

    /// The context of each query, as CompVis' `scripts/knn2img.py:350` makes it: the embedding of the query, followed by those
    /// of its neighbors; and the neighbors by name.
    ///
    /// # Shapes
    /// - returns `[Q, 1 + k, P]` f32 of unit length, on the CPU; `k` is 0 without a database
    ///
    /// # Errors
    /// When the image cannot be read, CLIP has no tokenizer, or `k` is above the number of images.
    pub fn context(
        &self,
        query: &RetrievalQuery,
        reporter: &dyn Reporter,
    ) -> Result<(Tensor, Vec<Vec<NamedNeighbor>>)> {
        let queries = self.embed(query, reporter)?;
        let Some((database, k, search)) = &self.database else {
            return Ok((context(&queries)?, vec![Vec::new(); queries.size()[0] as usize]));
        };
        let (context, found) = database.context(&queries, *k, *search)?;
        let named = |Neighbor { index, score }: &Neighbor| NamedNeighbor {
            name: database.name(*index).into_owned(),
            score: *score,
        };
        Ok((context, found.iter().map(|found| found.iter().map(named).collect()).collect()))
    }

    /// The embeddings of queries, `[Q, P]`.
    fn embed(&self, query: &RetrievalQuery, reporter: &dyn Reporter) -> Result<Tensor> {
        match query {
            RetrievalQuery::Texts(texts) => {
                let prompt = Prompt::text(texts.iter().cloned());
                for cut in self.clip.cut(&prompt).into_iter().flatten() {
                    reporter.warn(&format!("a text is longer than CLIP reads, left out: {cut}"));
                }
                self.clip.texts(&prompt)
            }
            RetrievalQuery::Image(path) => {
                let transform = Transform::new(TransformConfig::square(self.clip.side() as u32))?;
                let prepared = transform.apply(image::read(path)?, &mut Rng::of(&[]));
                let prepared = prepared.with_context(|| path.display().to_string())?;
                self.clip.images(&image::from_rgb8(&prepared).unsqueeze(0))
            }
        }
    }
}
