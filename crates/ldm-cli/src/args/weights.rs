//! `ldm weights`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Lists the resources: licenses, sizes, and paths of installed files.
    #[command(after_help = "Example:\n  ldm weights list")]
    List {
        /// One JSON document, with every address and sha256.
        #[arg(long)]
        json: bool,
        /// A list of your own in place of the built-in one (YAML, see docs/weights.md).
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// Downloads resources, verifies them, and prints their paths. Resumes an interrupted download.
    #[command(
        after_help = "Examples:\n  ldm weights get lpips-vgg16\n  ldm weights get bert-tokenizer --from vocab.txt\n  ldm weights get lpips-vgg16 fid-inception --from ~/.cache/torch/hub/checkpoints\n  ldm weights get clip-tokenizer --url https://mirror.example.com/ldm"
    )]
    Get(GetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Names of `ldm weights list`.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Install a copy you have, and download nothing; a file or a folder, and more than once for several.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// Download from a mirror, URL/NAME/FILE; $LDM_WEIGHTS_URL where absent, else each file's own address.
    #[arg(long, conflicts_with = "from")]
    pub(crate) url: Option<String>,
    /// Consecutive attempts that may transfer nothing.
    #[arg(long, default_value_t = 4, conflicts_with = "from")]
    pub(crate) retries: u32,
    /// Replace installed files with a wrong sha256.
    #[arg(long)]
    pub(crate) force: bool,
    /// A list of your own in place of the built-in one (YAML, see docs/weights.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
}
