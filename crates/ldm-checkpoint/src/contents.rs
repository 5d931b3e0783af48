//! The result of reading a file's header or pickle.

use std::collections::BTreeMap;

use crate::entry::TensorEntry;

/// The metadata and tensors of one file.
#[derive(Debug, Default)]
pub(crate) struct FileContents {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) entries: BTreeMap<String, TensorEntry>,
}
