//! `ldm eval generation`: how far made images are from real ones.

use anyhow::{Context, bail};
use ldm_core::files;
use ldm_metrics::{FeatureNetwork, Kept, MeanStd, Origin, SetDistance, SetFeatures};
use serde_json::{Value, json};
use tch::Tensor;

use super::maker::Maker;
use super::reference::Reference;
use super::set::{self, ImageSet};
use super::shown::Shown;
use crate::args::GenerationArgs;
use crate::progress::Printer;
use crate::{model, output};

pub(crate) fn run(args: &GenerationArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = output::folder(&args.output, "eval");
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    let with_made = args.made.is_some() || args.maker.model.is_some();
    let written = if with_made { vec![&results, &best, &worst] } else { Vec::new() };
    let mut written = written.into_iter().chain(&args.save_statistics);
    written.try_for_each(|path| output::ensure_new(path, args.output.force))?;
    let device = model::device(&args.device, Some(printer))?;
    let reference = Reference::open(&args.data)?;
    if let (Reference::Moments(..), Some(_)) = (&reference, &args.save_statistics) {
        bail!("--save-statistics: {} are statistics already", args.data.dataset.display());
    }
    let made = args.made.as_ref().map(|path| set::open_made(path, args.data.size)).transpose()?;
    let mut maker = Maker::open(args)?;
    let count = maker.as_ref().map(|_| reference.count(&args.how)).transpose()?;

    let network = set::network(&args.how, device)?;
    let mut measuring = Measuring { args, network: &network, printer, size: None };
    let mut real = match &reference {
        Reference::Moments(path, moments) => {
            moments.check(&network).with_context(|| path.display().to_string())?;
            None
        }
        Reference::Set(data) => {
            let images = ImageSet::of(data, &args.how, args.data.strict)?;
            let kept = if with_made { Kept::All } else { Kept::Nothing };
            Some(measuring.gathered(kept, images, &mut |_, _, _| Ok(()))?)
        }
    };
    if let (Some(path), Reference::Set(data), Some(real)) = (&args.save_statistics, &reference, &real) {
        let mut moments = real.moments()?;
        moments.origin = Origin {
            features: Some(network.name().into()),
            dataset: Some(data.name()),
            fingerprint: Some(data.fingerprint()),
            ..moments.origin
        };
        moments.write_npz(path)?;
        if !with_made {
            println!("{}", path.display());
            return Ok(());
        }
    }
    let images = match (&made, &mut maker, count) {
        (Some(data), ..) => ImageSet::of(data, &args.how, args.data.strict)?,
        (None, Some(maker), Some(count)) => ImageSet::made(maker, count, args.how.batch_size),
        _ => unreachable!("what was made is asked for above"),
    };
    let mut shown = Shown::default();
    let mut apart = MeanStd::new();
    let kept = if real.is_some() { Kept::All } else { Kept::Answers };
    let drawn = measuring.gathered(kept, images, &mut |names, images, features| {
        if let Some(real) = &mut real {
            let nearest = real.nearest(features)?;
            apart.add(&nearest);
            shown.add(&-nearest, names, &[images]);
        }
        Ok(())
    })?;
    let found = match (&reference, &real) {
        (Reference::Moments(_, moments), _) => moments.distance(&drawn)?,
        (_, Some(real)) => real.distance(&drawn)?,
        _ => unreachable!("a set was gathered"),
    };
    let real_count = real.as_ref().map(SetFeatures::count);
    set::warn_of_rank(&network, drawn.count().min(real_count.unwrap_or(i64::MAX)));
    let mut document = reference.json(real_count)?;
    document.extend(numbers(&found, &network));
    document.extend([
        ("made".to_owned(), json!(made.as_ref().map(|data| data.name()))),
        ("made_images".into(), json!(drawn.count())),
        ("made_fingerprint".into(), json!(made.as_ref().map(|data| data.fingerprint()))),
        ("sampling".into(), json!(maker.as_ref().map(Maker::json))),
        ("size".into(), json!(measuring.size)),
    ]);
    output::make(&folder)?;
    if real.is_some() {
        let [of_best, of_worst] = shown.names();
        let nearest = json!({"mean": apart.mean(), "std": apart.std(), "best": of_best, "worst": of_worst});
        document.insert("nearest_real".into(), nearest);
        shown.write(&best, &worst)?;
    }
    let document = Value::Object(document);
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    if args.how.json {
        println!("{document:#}");
    } else {
        say(&document);
    }
    Ok(())
}

/// What both sets go through.
struct Measuring<'a> {
    args: &'a GenerationArgs,
    network: &'a FeatureNetwork,
    printer: Printer,
    /// Of every image so far.
    size: Option<[i64; 2]>,
}

/// Sees a batch: what its images are called, the images, their features.
type See<'a> = &'a mut dyn FnMut(&[String], &Tensor, &Tensor) -> anyhow::Result<()>;

impl Measuring<'_> {
    fn gathered(&mut self, kept: Kept, images: ImageSet, see: See) -> anyhow::Result<SetFeatures> {
        let mut features = SetFeatures::keeping(kept);
        let mut bar = self.printer.bar(images.count as u64, 0);
        for batch in images.batches {
            let (names, batch) = batch?;
            self.check_size(&names, &batch)?;
            let seen = features.add(self.network, &batch)?;
            see(&names, &batch, &seen)?;
            bar.at(features.count() as u64);
        }
        bar.finish();
        Ok(features)
    }

    /// All images of both sets have one size: a network that resizes them would see by this how they were made.
    fn check_size(&mut self, names: &[String], batch: &Tensor) -> anyhow::Result<()> {
        let found = [batch.size()[2], batch.size()[3]];
        let [height, width] = *self.size.get_or_insert(found);
        if found != [height, width] {
            let asked = if self.args.data.size.is_some() { "another --size" } else { "--size" };
            bail!(
                "{}: is {}x{} where images before it are {width}x{height}: give {asked}",
                names[0],
                found[1],
                found[0]
            );
        }
        Ok(())
    }
}

/// What the JSON says of a distance.
fn numbers(found: &SetDistance, network: &FeatureNetwork) -> [(String, Value); 11] {
    let sum = |sum: &MeanStd| json!({"mean": sum.mean(), "std": sum.std(), "parts": sum.count()});
    let manifold = |of: fn(&ldm_metrics::Manifold) -> f64| json!(found.manifold.as_ref().map(of));
    [
        ("features", json!(network.name())),
        ("frechet_distance", json!(found.frechet)),
        ("spatial_frechet_distance", json!(found.spatial)),
        ("kernel_distance", json!(found.kernel.as_ref().map(sum))),
        ("precision", manifold(|of| of.precision)),
        ("recall", manifold(|of| of.recall)),
        ("density", manifold(|of| of.density)),
        ("coverage", manifold(|of| of.coverage)),
        ("neighbors", json!(found.manifold.map(|_| SetFeatures::NEIGHBOR))),
        ("inception_score", json!(found.inception_score.as_ref().map(sum))),
        ("ldm", json!(env!("CARGO_PKG_VERSION"))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn say(document: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("a set that does not say what it is").to_owned();
    let made = document["made"].as_str().map_or_else(
        || format!("{}, seed {}", text(&document["sampling"]["model"]), document["sampling"]["seed"]),
        ToOwned::to_owned,
    );
    println!("{} made images ({made})", document["made_images"]);
    match document["images"].as_i64() {
        Some(images) => println!("{images} real images ({})", text(&document["dataset"])),
        None => println!("real images: {}", text(&document["statistics"])),
    }
    println!("{:<24} {}", "features", text(&document["features"]));
    for name in ["frechet_distance", "spatial_frechet_distance", "precision", "recall", "density", "coverage"]
    {
        if let Some(value) = document[name].as_f64() {
            println!("{name:<24} {value:.4}");
        }
    }
    for name in ["kernel_distance", "inception_score", "nearest_real"] {
        if let (Some(mean), Some(std)) = (document[name]["mean"].as_f64(), document[name]["std"].as_f64()) {
            println!("{name:<24} {mean:.6} +- {std:.6}");
        }
    }
}
