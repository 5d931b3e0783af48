//! Groups of images that are drawn equally often.

use std::collections::HashMap;
use std::path::PathBuf;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::labels::caption_file::{CaptionFile, Column};
use crate::source::data_paths::DataPaths;
use crate::source::missing::Missing;
use crate::stored::listing::Listing;

/// Groups of images that are drawn equally often in training, by a column of a table: subjects of which some have many
/// variants, classes of unequal size.
///
/// ```yaml
/// balance: { file: emoji/captions.tsv, name: key, group: base }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceConfig {
    /// The table, `.tsv`, `.csv` or `.jsonl`, as that of [`CaptionFile`].
    pub file: PathBuf,
    /// Column or key of the name of the image. Left out, the first column, or `file_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Column>,
    /// Column or key of the group.
    pub group: Column,
}

impl BalanceConfig {
    /// Computes the weight of each image: one divided by the number of images of its group.
    ///
    /// # Errors
    /// Those of [`CaptionFile`], and [`Error::Data`] when an image has no group or several.
    pub(crate) fn weights(&self, paths: &DataPaths, listing: &Listing) -> Result<Vec<f64>> {
        let table = CaptionFile {
            file: self.file.clone(),
            name: self.name.clone(),
            caption: Some(self.group.clone()),
            missing: Missing::default(),
        };
        let groups = table.read(paths)?;
        let mut of: Vec<Option<&str>> = vec![None; listing.items.len()];
        let names = listing.names();
        let path = paths.resolve(&self.file)?;
        let bad = |message: String| Error::data(&path, message);
        for (name, found) in &groups {
            let [group] = found.as_slice() else {
                return Err(bad(format!("expected one group of {name}, got {}", found.len())));
            };
            names.find(name).iter().for_each(|&image| of[image] = Some(group));
        }
        let mut counts: HashMap<&str, f64> = HashMap::new();
        for (item, group) in listing.items.iter().zip(&of) {
            let Some(group) = group else {
                let name = &listing.image(item).name;
                let count = of.iter().filter(|group| group.is_none()).count();
                return Err(bad(format!(
                    "expected a group of every image, got none for {count} of {}, e.g. {name}",
                    of.len()
                )));
            };
            *counts.entry(group).or_default() += 1.;
        }
        Ok(of.into_iter().flatten().map(|group| 1. / counts[group]).collect())
    }
}
