//! Images without a label that others have.

use serde::{Deserialize, Serialize};

/// Treatment of an image without a caption, label map or mask that others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Opening the dataset fails and names the image.
    #[default]
    Refuse,
    /// Leaves the image out.
    Skip,
}
