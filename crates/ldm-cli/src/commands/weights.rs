//! `ldm weights`: downloads of tokenizers and of the networks of LPIPS and FID.

use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;
use ldm_core::resources;
use ldm_weights::{
    DownloadEvent, Manifest, RemoteFile, Resource, WeightsSource, install, is_installed, megabytes,
};
use serde_json::json;

use crate::args::{Cli, GetArgs, WeightsCommand};
use crate::progress::{Printer, Progress};
use crate::terminal::{self, outln};

const MIRROR: &str = "LDM_WEIGHTS_URL";

pub(crate) fn run(command: &WeightsCommand, printer: Printer) -> anyhow::Result<()> {
    match command {
        WeightsCommand::List { json, manifest } => list(&Manifest::open(manifest.as_deref())?, *json),
        WeightsCommand::Get(args) => get(args, printer),
    }
}

fn list(manifest: &Manifest, as_json: bool) -> anyhow::Result<()> {
    let cache = resources::cache_dir()?;
    if as_json {
        let resources: Vec<_> = manifest.resources.iter().map(|each| described(each, &cache)).collect();
        terminal::write_json(&json!({"folder": cache, "resources": resources}), false)?;
        return Ok(());
    }
    let width = |text: &dyn Fn(&Resource) -> usize| manifest.resources.iter().map(text).max().unwrap_or(0);
    let (names, licenses) = (width(&|each| each.name.len()), width(&|each| each.licenses().len()));
    for each in &manifest.resources {
        let folder = cache.join(&each.name);
        let place = match each.files.iter().filter(|file| is_installed(file, &folder)).count() {
            0 => "not installed".into(),
            all if all == each.files.len() => folder.display().to_string(),
            some => format!("{some} of {} files in {}", each.files.len(), folder.display()),
        };
        outln!(
            "{:names$}  {:>8}  {:licenses$}  {place}",
            each.name,
            megabytes(each.size()),
            each.licenses()
        )?;
        outln!("{:names$}  for {}", "", each.purpose)?;
    }
    Ok(())
}

fn described(resource: &Resource, cache: &Path) -> serde_json::Value {
    let folder = cache.join(&resource.name);
    let file = |file: &RemoteFile| {
        json!({
            "name": file.name, "url": file.url, "license": file.license, "size": file.size, "sha256": file.sha256,
            "path": is_installed(file, &folder).then(|| folder.join(&file.name)),
        })
    };
    json!({
        "name": resource.name, "for": resource.purpose, "size": resource.size(),
        "installed": resource.files.iter().all(|file| is_installed(file, &folder)),
        "files": resource.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn get(args: &GetArgs, printer: Printer) -> anyhow::Result<()> {
    let manifest = Manifest::open(args.manifest.as_deref())?;
    let known = manifest.names().join(", ");
    if args.names.is_empty() {
        wrong_usage(ErrorKind::MissingRequiredArgument, &format!("NAME: expected one of {known}, got none"));
    }
    let mut requested: Vec<&Resource> = Vec::new();
    for name in &args.names {
        match manifest.find(name) {
            Some(resource) if requested.iter().all(|each| each.name != *name) => requested.push(resource),
            Some(_) => {}
            None => {
                wrong_usage(ErrorKind::InvalidValue, &format!("NAME: expected one of {known}, got {name}"))
            }
        }
    }
    let source = if args.from.is_empty() {
        let mirror = args.url.clone().or_else(|| std::env::var(MIRROR).ok().filter(|url| !url.is_empty()));
        WeightsSource::Network { mirror, retries: args.retries }
    } else {
        WeightsSource::Copies(args.from.clone())
    };
    for resource in requested {
        let mut bar = None;
        for path in install(resource, &source, args.force, &mut |event| show(event, &mut bar, printer))? {
            outln!("{}", path.display())?;
        }
    }
    Ok(())
}

/// Shows the progress of an installation, with a bar while a file is transferred.
fn show(event: DownloadEvent, bar: &mut Option<Progress>, printer: Printer) {
    match event {
        DownloadEvent::Waiting(folder) => {
            printer.say(&format!("{}: waiting for another `ldm weights get`", folder.display()));
        }
        DownloadEvent::NoLocks(folder) => Printer::warn(&format!(
            "{}: the file system has no locks; run one `ldm weights get` at a time",
            folder.display()
        )),
        DownloadEvent::Requested { file, url } => {
            printer.say(&format!("{} from {url} (license: {})", megabytes(file.size), file.license));
        }
        DownloadEvent::Started { file, length } => {
            bar.insert(printer.bytes(file.size, length)).message(file.name.clone());
        }
        DownloadEvent::Progress { length } => bar.iter_mut().for_each(|bar| bar.at(length)),
        DownloadEvent::Retry { error, pause } => {
            let text = format!("{error}; another attempt in {:.1} s", pause.as_secs_f64());
            if let Some(bar) = bar {
                bar.line(&text);
            }
        }
        DownloadEvent::Ended => bar.take().into_iter().for_each(Progress::finish),
        DownloadEvent::Restarted(file) => {
            printer.say(&format!("{}: the partial download does not match; starting over", file.name));
        }
        _ => {}
    }
}

/// Exits with code 2 and a usage error, like clap.
fn wrong_usage(kind: ErrorKind, message: &str) -> ! {
    let mut command = Cli::command();
    command.build();
    let get = command.find_subcommand_mut("weights").and_then(|weights| weights.find_subcommand_mut("get"));
    get.expect("the running command").error(kind, message).exit()
}
