//! The command that makes an image again.

mod fields;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result};
use ldm_pipelines::ModelSource;

use crate::input_file::hash_of;
use crate::web_ui::{loras, sampler_of};
use crate::{EMBEDDED_MODEL, PngParameters, model_path};
use fields::{FLAGS, OTHERS, SAME};

/// The command line of `ldm` that makes the image of a PNG again, from its text `parameters`.
///
/// Files that the text names (the model, LoRAs, learned words, images, masks, maps, layouts) are looked up in the current folder, in
/// `runs/` and next to the image.
#[derive(Debug, PartialEq, Eq)]
pub struct Redo {
    /// The words of the command line, after `ldm`.
    pub arguments: Vec<String>,
    /// Settings that are not followed.
    pub notes: Vec<String>,
}

impl Redo {
    /// Reads the PNG `image`; `options` are further options, each in place of the one that the image was made with.
    ///
    /// # Errors
    /// As [`PngParameters::read`]; [`Error::Format`] for images of `ldm knn2img`, whose neighbors the text does not name, for a
    /// ControlNet that is not given, and for a file that is not found or has changed.
    pub fn read(image: &Path, options: &[String]) -> Result<Self> {
        RedoCommand::new(image, PngParameters::read(image)?, options)?.finish(options)
    }
}

/// A command line in the making.
struct RedoCommand<'a> {
    image: &'a Path,
    parameters: PngParameters,
    /// The names of the options that are given.
    given: BTreeSet<String>,
    name: &'static str,
    options: Vec<String>,
    positionals: Vec<String>,
}

impl<'a> RedoCommand<'a> {
    fn new(image: &'a Path, parameters: PngParameters, options: &[String]) -> Result<Self> {
        let names = options.iter().filter_map(|word| match word.as_str() {
            "-n" => Some("num-images".to_owned()),
            word => Some(word.strip_prefix("--")?.split('=').next().unwrap_or_default().to_owned()),
        });
        let given: BTreeSet<String> = names.collect();
        let two_passes = parameters.get("Hires upscale").is_some();
        let from_image = parameters.get("Denoising strength").is_some() && !two_passes;
        let name = match (parameters.heading.as_ref().map(|(task, _)| task.as_str()), &parameters.prompt) {
            (Some("class"), _) | (None, None) => "sample",
            (Some("inpaint"), _) => "inpaint",
            (Some("outpaint"), _) => "outpaint",
            (Some("upscale"), _) => "upscale",
            (Some("layout"), _) => "layout2img",
            (Some("map"), _) => "semantic2img",
            (Some(other), _) => {
                let why = format!(
                    "expected an image of another command, got one of {other}, whose neighbors the text does not \
                     name; try ldm {other}"
                );
                return Err(Error::format(image, why));
            }
            (None, Some(_)) if from_image => "img2img",
            (None, Some(_)) => "txt2img",
        };
        let control = parameters.fields.iter().map(|(key, _)| key).find(|key| is_control(key));
        if let (Some(field), false) = (control, given.contains("controlnet")) {
            let why = format!(
                "expected an image made without a ControlNet, whose file the text does not name, got {field}; try \
                 ldm redo with --controlnet and --control-image"
            );
            return Err(Error::format(image, why));
        }
        Ok(Self { image, parameters, given, name, options: Vec::new(), positionals: Vec::new() })
    }

    fn finish(mut self, options: &[String]) -> Result<Redo> {
        let ours = self.parameters.get("Version").is_some_and(|version| version.starts_with("ldm "));
        let model = self.model(options)?;
        self.texts(ours);
        self.sampler(&model);
        for (field, option) in SAME {
            if let Some(value) = self.field(field) {
                self.push(option, &value);
            }
        }
        for (field, value, flag) in FLAGS {
            if self.parameters.get(field) == Some(value) && !self.given.contains(flag) {
                self.options.push(format!("--{flag}"));
            }
        }
        self.size_and_strength();
        self.inputs()?;
        self.files()?;
        let first = self.batch();
        let options = options.to_vec();
        let options = if first == 0 { options } else { shifted(options, first)? };
        let notes = self.notes(ours);
        let mut arguments = vec![self.name.to_owned()];
        arguments.extend(self.options);
        arguments.extend(options);
        arguments.push("--".into());
        arguments.extend(self.positionals);
        Ok(Redo { arguments, notes })
    }

    /// The value of a field.
    fn field(&self, key: &str) -> Option<String> {
        self.parameters.get(key).map(str::to_owned)
    }

    /// Adds an option that is not given.
    fn push(&mut self, option: &str, value: &str) {
        if !self.given.contains(option) {
            self.options.push(format!("--{option}={value}"));
        }
    }

    /// Adds the model, and returns its path.
    fn model(&mut self, options: &[String]) -> Result<PathBuf> {
        let word = options.iter().position(|word| word == "--model");
        let after = word.and_then(|index| options.get(index + 1)).map(String::as_str);
        let joined = options.iter().find_map(|word| word.strip_prefix("--model="));
        if let Some(path) = after.or(joined) {
            return Ok(path.into());
        }
        let name = self.field("Model").unwrap_or_default();
        let path = match self.found("model", &name) {
            Err(_) if EMBEDDED_MODEL == Some(&name) => model_path(name.into())?,
            found => found?,
        };
        self.push("model", &path.display().to_string());
        Ok(path)
    }

    fn texts(&mut self, ours: bool) {
        if let Some((_, class)) = self.parameters.heading.clone().filter(|(task, _)| task == "class") {
            self.push("class", &class);
        }
        let Some(prompt) = self.parameters.prompt.clone() else { return };
        let negative = self.parameters.negative.clone();
        if !negative.is_empty() {
            self.push("negative-prompt", &negative);
        }
        // The web UI reads weights unless it says otherwise.
        if !ours && self.parameters.get("Emphasis") != Some("None") {
            self.push("prompt-syntax", "weights");
        }
        self.positionals.push(prompt);
    }

    /// Adds the sampler and, where the web UI names it with the sampler, the spacing. That of the model itself is left to
    /// the model, whose settings may say more of it.
    fn sampler(&mut self, model: &Path) {
        let Some(sampler) = self.field("Sampler") else { return };
        let (name, spacing) = sampler_of(&sampler, self.parameters.get("Schedule type"));
        if let Some(spacing) = spacing.filter(|_| self.parameters.get("Spacing").is_none()) {
            self.push("spacing", spacing);
        }
        let own = ModelSource::find(model, None, true).ok().and_then(|found| found.scheduler);
        let own = own.map(|scheduler| scheduler.sampler().0.name());
        if let Some(name) = name
            && (own != Some(name) || self.parameters.get("Spacing").is_some())
        {
            self.push("sampler", name);
        }
    }

    /// Adds the size, where it is not that of an image, and the strength.
    fn size_and_strength(&mut self) {
        let size = self.field("Size").unwrap_or_default();
        if let Some((width, height)) = size.split_once('x')
            && ["sample", "txt2img", "layout2img"].contains(&self.name)
        {
            self.push("width", width);
            self.push("height", height);
        }
        match (self.field("Denoising strength"), self.name) {
            (None, _) | (Some(_), "outpaint") => {}
            (Some(strength), "img2img" | "inpaint") => self.push("strength", &strength),
            (Some(strength), _) => self.push("hires-strength", &strength),
        }
    }

    /// Adds the input files, and the sides of an outpainted image.
    fn inputs(&mut self) -> Result<()> {
        let (_, heading) = self.parameters.heading.clone().unwrap_or_default();
        let files: &[(&str, &str)] = match self.name {
            "img2img" | "outpaint" | "upscale" => &[("Init image", "initial image")],
            "semantic2img" => &[("Init image", "map")],
            "inpaint" => &[("Init image", "initial image"), ("Mask", "mask")],
            "layout2img" => &[("Layout", "layout")],
            _ => &[],
        };
        for (place, (field, what)) in files.iter().enumerate() {
            let path = self.input(field, what)?;
            self.positionals.insert(place, path);
        }
        if self.field("Palette").is_some() && !self.given.contains("palette") {
            let path = self.input("Palette", "palette")?;
            self.push("palette", &path);
        }
        // Of a file of several layouts, the name is that of an image.
        if self.name == "layout2img" && self.field("Layout").is_some_and(|file| file != heading) {
            self.push("image", &heading);
        }
        if self.name == "outpaint" {
            // The last four words: the path may hold anything.
            for (side, word) in ["bottom", "top", "right", "left"].iter().zip(heading.rsplit(", ")) {
                self.push(side, word.strip_prefix(side).unwrap_or_default().trim());
            }
        }
        Ok(())
    }

    /// The path of an input file whose name and hash the text has.
    fn input(&self, field: &str, what: &str) -> Result<String> {
        let Some(name) = self.field(field) else {
            let command = self.name;
            let why = format!("expected the name of the {what} in the text, got none; try ldm {command}");
            return Err(Error::format(self.image, why));
        };
        let path = self.found(what, &name)?;
        let hash = self.field(&format!("{field} hash"));
        if hash.is_some_and(|hash| hash_of(&path).is_ok_and(|found| found != hash)) {
            let why = format!("expected the file that {} was made from, got another", self.image.display());
            return Err(Error::format(path, why));
        }
        Ok(path.display().to_string())
    }

    /// Adds LoRAs, learned words and the classifier.
    fn files(&mut self) -> Result<()> {
        if !self.given.contains("lora") {
            for lora in self.field("Lora").iter().flat_map(|text| loras(text)) {
                let (name, strength) = lora.rsplit_once(':').unwrap_or((&lora, "1"));
                let path = self.found("LoRA", name)?;
                self.options.push(format!("--lora={}={strength}", path.display()));
            }
        }
        if !self.given.contains("embedding") {
            let words = self.field("Embeddings").unwrap_or_default();
            for word in words.split_whitespace() {
                let path = self.found("embedding", word)?;
                self.options.push(format!("--embedding={}:{word}", path.display()));
            }
        }
        if let Some(name) = self.field("Classifier").filter(|_| !self.given.contains("classifier")) {
            let path = self.found("classifier", &name)?;
            self.push("classifier", &path.display().to_string());
        }
        let fields = self.parameters.fields.iter();
        let overrides: Vec<String> =
            fields.filter(|(key, _)| key == "Override").map(|(_, value)| value.clone()).collect();
        self.positionals.extend(overrides);
        Ok(())
    }

    /// Adds the batch, of which one image is written, and returns its place in it; and the seeds, which are those of the
    /// first image of the batch.
    fn batch(&mut self) -> u64 {
        let number = |key| self.parameters.get(key).and_then(|text| text.parse::<u64>().ok());
        let (images, place) = (number("Batch size"), number("Batch pos"));
        let (seed, variation) = (number("Seed"), number("Variation seed"));
        let given = ["num-images", "batch-size"].iter().any(|option| self.given.contains(*option));
        let place = match (images, place) {
            (Some(images), Some(place)) if place < images && images <= MAX_BATCH && !given => {
                self.push("num-images", &images.to_string());
                self.push("batch-size", &images.to_string());
                self.push("only", &place.to_string());
                place
            }
            _ => 0,
        };
        for (option, seed) in [("seed", seed), ("variation-seed", variation)] {
            if let Some(seed) = seed {
                self.push(option, &seed.wrapping_sub(place).to_string());
            }
        }
        place
    }

    /// Finds a file or folder of this name.
    fn found(&self, what: &str, name: &str) -> Result<PathBuf> {
        let next_to = self.image.parent().unwrap_or(Path::new(""));
        let folders = [Path::new(""), Path::new("runs"), next_to];
        let ends = ["", ".safetensors", ".pt", ".bin", ".ckpt"];
        let mut paths =
            folders.iter().flat_map(|folder| ends.iter().map(|end| folder.join(format!("{name}{end}"))));
        let safe = !name.is_empty() && name != ".." && !name.contains(['/', '\\']);
        paths.find(|path| safe && path.exists()).ok_or_else(|| {
            let option = match what {
                "initial image" | "map" | "mask" | "layout" => format!("ldm {}", self.name),
                what => format!("--{}", what.to_lowercase()),
            };
            let name = name.escape_debug();
            let why = format!(
                "expected the {what} `{name}` here, in runs/ or next to the image, got none; try {option}"
            );
            Error::format(self.image, why)
        })
    }

    fn notes(&self, ours: bool) -> Vec<String> {
        let followed = |key: &str| {
            SAME.iter().any(|(field, _)| *field == key)
                || FLAGS.iter().any(|(field, ..)| *field == key)
                || OTHERS.contains(&key)
                || is_control(key)
        };
        let fields = self.parameters.fields.iter();
        let mut ignored: Vec<String> = fields
            .filter(|(key, value)| match key.as_str() {
                "Version" => false,
                "Hires upscaler" => value != "Lanczos",
                "Sampler" => sampler_of(value, None).0.is_none(),
                key => !followed(key),
            })
            .map(|(key, _)| key.clone())
            .collect();
        if self.parameters.prompt.as_ref().is_some_and(|prompt| prompt.contains("<lora:")) {
            ignored.push("<lora:…> in the prompt, which is read as text".into());
        }
        let mut notes = Vec::new();
        let image = self.image.display();
        if !ours {
            notes
                .push(format!("{image}: made by another program, whose noise differs: expect another image"));
        }
        if !ignored.is_empty() {
            notes.push(format!("{image}: ignored {}", ignored.join(", ")));
        }
        notes
    }
}

/// Returns true for the field of a ControlNet.
fn is_control(key: &str) -> bool {
    key.starts_with("ControlNet")
}

/// Makes the seeds that are given those of the first image of the batch.
fn shifted(mut options: Vec<String>, place: u64) -> Result<Vec<String>> {
    let earlier = |text: &str| match text.parse::<u64>() {
        Ok(seed) => Ok(seed.wrapping_sub(place).to_string()),
        Err(_) => Err(Error::expected("--seed", "a number", text)),
    };
    for index in 0..options.len() {
        for option in ["--seed", "--variation-seed"] {
            if let Some(text) = options[index].strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
                options[index] = format!("{option}={}", earlier(text)?);
            } else if options[index] == option && index + 1 < options.len() {
                options[index + 1] = earlier(&options[index + 1])?;
            }
        }
    }
    Ok(options)
}

/// The largest batch that is made again for one of its images.
const MAX_BATCH: u64 = 1024;
