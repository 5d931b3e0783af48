//! `ldm weights`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Lists the available files: licenses, sizes, and the paths of installed ones.
    #[command(after_help = "Example:\n  ldm weights list")]
    List {
        /// Print one JSON document, with every URL and sha256.
        #[arg(long)]
        json: bool,
        /// Manifest to use instead of the built-in one (YAML, see docs/guide/weights.md).
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// Downloads files, verifies them, and prints their paths. Resumes an interrupted download.
    #[command(
        after_help = "Examples:\n  ldm weights get lpips-vgg16\n  ldm weights get bert-tokenizer --from vocab.txt\n  ldm weights get lpips-vgg16 fid-inception --from ~/.cache/torch/hub/checkpoints\n  ldm weights get clip-tokenizer --url https://mirror.example.com/ldm"
    )]
    Get(GetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Names listed by `ldm weights list`.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Install a local copy, a file or a folder, and download nothing; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// Download from a mirror, URL/NAME/FILE. Default: $LDM_WEIGHTS_URL, else each file's own URL.
    #[arg(long, conflicts_with = "from")]
    pub(crate) url: Option<String>,
    /// Consecutive attempts without progress before giving up.
    #[arg(long, default_value_t = 4, conflicts_with = "from")]
    pub(crate) retries: u32,
    /// Replace installed files whose sha256 does not match.
    #[arg(long)]
    pub(crate) force: bool,
    /// Manifest to use instead of the built-in one (YAML, see docs/guide/weights.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
}
