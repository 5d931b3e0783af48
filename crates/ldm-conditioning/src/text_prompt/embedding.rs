//! Files of textual inversion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

/// A learned word: its text and its vectors (textual inversion, Gal et al. 2022).
#[derive(Debug)]
pub struct TextualInversion {
    /// The word as it stands in prompts.
    pub token: String,
    /// `[n, D]` f32, one vector for each token that the word takes.
    pub vectors: Tensor,
}

/// A learned word on the command line: `FILE` or `FILE:TOKEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingFile {
    /// The file, or the folder of a run or of diffusers (`learned_embeds`).
    pub path: PathBuf,
    /// The word; that of the file, or the file's name, where absent.
    pub token: Option<String>,
}

/// File names in runs, and of diffusers.
const NAMES: [&str; 3] =
    ["model/learned_embeds.safetensors", "learned_embeds.safetensors", "learned_embeds.bin"];
/// Tensor names without a word: those of AUTOMATIC1111 in a `.pt` and in safetensors.
const NAMELESS: [&str; 2] = ["*", "emb_params"];

impl FromStr for EmbeddingFile {
    type Err = Error;

    /// Parses a word after the last `:`, unless the whole is a path that exists.
    fn from_str(text: &str) -> Result<Self> {
        let given = text.rsplit_once(':').filter(|_| !Path::new(text).exists());
        let (path, token) = given.map_or((text, None), |(path, token)| (path, Some(token.to_owned())));
        if path.is_empty() || token.as_deref().is_some_and(|token| token.trim().is_empty()) {
            return Err(Error::invalid(format!("expected FILE or FILE:TOKEN, got {text}")));
        }
        Ok(Self { path: path.into(), token })
    }
}

impl From<&Path> for EmbeddingFile {
    fn from(path: &Path) -> Self {
        Self { path: path.to_path_buf(), token: None }
    }
}

impl EmbeddingFile {
    /// Reads the file: AUTOMATIC1111's `.pt` (`string_to_param`) or safetensors (`emb_params`), whose word is the
    /// file's name, or diffusers' `{word: vectors}`, all for one text model.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`Error::Format`] for a file with other tensors, of another shape or dtype, or with
    /// NaN or Inf.
    pub fn read(&self) -> Result<TextualInversion> {
        let folder = self.path.is_dir();
        let path = if folder { in_folder(&self.path)? } else { self.path.clone() };
        let refuse = |expected: &str, got: String| {
            Err(Error::format(&path, format!("expected {expected}, got {got}")))
        };
        let checkpoint = Checkpoint::open(&path)?;
        let names: Vec<&str> = checkpoint.names().collect();
        if names.contains(&"clip_g") {
            return refuse(
                "an embedding for one text model",
                "one for SDXL, which has two (clip_l, clip_g)".into(),
            );
        }
        let [name] = names.as_slice() else {
            return refuse("an embedding, the vectors of one word", format!("{} tensors", names.len()));
        };
        let vectors = checkpoint.tensor(name)?;
        let vectors = if vectors.dim() == 1 { vectors.unsqueeze(0) } else { vectors };
        if vectors.dim() != 2 || vectors.numel() == 0 || !is_float(vectors.kind()) {
            let got = format!("{:?} of {:?}", vectors.kind(), vectors.size());
            return refuse(&format!("numbers [n, D] or [D] in `{name}`"), got);
        }
        let vectors = vectors.to_kind(Kind::Float);
        if !bool::try_from(vectors.isfinite().all())? {
            return refuse("finite numbers", "NaN or Inf".into());
        }
        let own = (!NAMELESS.contains(name)).then(|| (*name).to_owned());
        let stem = || self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let token = self.token.clone().or(own).unwrap_or_else(stem);
        if token.trim().is_empty() || token.contains(char::is_control) {
            return refuse("a word without control characters", format!("{token:?}; try FILE:TOKEN"));
        }
        Ok(TextualInversion { token, vectors })
    }
}

fn in_folder(folder: &Path) -> Result<PathBuf> {
    let found = NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::format(folder, format!("expected {}, got none", NAMES.join(" or "))))
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double)
}

impl TextualInversion {
    /// Writes safetensors with the vectors under the word, which diffusers' `load_textual_inversion` and
    /// AUTOMATIC1111 read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let vectors = self.vectors.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float);
        ldm_checkpoint::save(path, &[(self.token.clone(), vectors)], &BTreeMap::new())
    }
}
