//! `ldm weights`: files that models need beside themselves.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::CommandFactory;
use clap::error::ErrorKind;
use ldm_core::resources;
use serde_json::json;

use crate::args::{Cli, GetArgs, WeightsCommand};
use crate::progress::Printer;
use crate::weights::{Lock, Manifest, RemoteFile, Resource, download, install_copies, sha256};

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
        println!("{:#}", json!({"folder": cache, "resources": resources}));
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
        println!(
            "{:names$}  {:>8}  {:licenses$}  {place}",
            each.name,
            megabytes(each.size()),
            each.licenses()
        );
        println!("{:names$}  for {}", "", each.purpose);
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

/// By its size: `get` looks at the bytes.
fn is_installed(file: &RemoteFile, folder: &Path) -> bool {
    folder.join(&file.name).metadata().is_ok_and(|data| data.is_file() && data.len() == file.size)
}

fn get(args: &GetArgs, printer: Printer) -> anyhow::Result<()> {
    let manifest = Manifest::open(args.manifest.as_deref())?;
    let known = manifest.names().join(", ");
    if args.names.is_empty() {
        wrong_usage(ErrorKind::MissingRequiredArgument, &format!("give a NAME, one of {known}"));
    }
    let mut asked: Vec<&Resource> = Vec::new();
    for name in &args.names {
        match manifest.find(name) {
            Some(resource) if asked.iter().all(|each| each.name != *name) => asked.push(resource),
            Some(_) => {}
            None => wrong_usage(
                ErrorKind::InvalidValue,
                &format!("unknown name `{name}`, expected one of {known}"),
            ),
        }
    }
    let cache = resources::cache_dir()?;
    let mirror = args.url.clone().or_else(|| std::env::var(MIRROR).ok().filter(|url| !url.is_empty()));
    for resource in asked {
        let folder = cache.join(&resource.name);
        // A shared folder that has everything may be read-only.
        if !lacking(resource, &folder, args.force)?.is_empty() {
            install(resource, &folder, mirror.as_deref(), args, printer)?;
        }
        for file in &resource.files {
            println!("{}", folder.join(&file.name).display());
        }
    }
    Ok(())
}

fn install(
    resource: &Resource,
    folder: &Path,
    mirror: Option<&str>,
    args: &GetArgs,
    printer: Printer,
) -> anyhow::Result<()> {
    let _lock = Lock::take(folder, printer)?;
    // Whoever held the lock may have installed them.
    let lacking = lacking(resource, folder, args.force)?;
    if !args.from.is_empty() {
        let missing = install_copies(&lacking, &args.from, folder)?;
        if !missing.is_empty() {
            bail!("{} is not complete: {}", resource.name, missing.join("; "));
        }
        return Ok(());
    }
    for file in lacking {
        let url = match mirror {
            Some(base) => format!("{}/{}/{}", base.trim_end_matches('/'), resource.name, file.name),
            None => file.url.clone(),
        };
        printer.say(&format!("{} from {url} (license: {})", megabytes(file.size), file.license));
        download(file, &url, &folder.join(&file.name), args.retries, printer)?;
    }
    Ok(())
}

/// The files that are not there; what is there and is something else is an error, or lacks too by `force`.
fn lacking<'a>(resource: &'a Resource, folder: &Path, force: bool) -> anyhow::Result<Vec<&'a RemoteFile>> {
    let mut lacking = Vec::new();
    for file in &resource.files {
        let path: PathBuf = folder.join(&file.name);
        if !path.exists() {
            lacking.push(file);
            continue;
        }
        let found = sha256(&path)?;
        if found != file.sha256 {
            if !force {
                bail!(
                    "{}: expected sha256 {}, found {found}; it is not replaced without --force",
                    path.display(),
                    file.sha256
                );
            }
            lacking.push(file);
        }
    }
    Ok(lacking)
}

/// Ends the program as clap does: exit code 2.
fn wrong_usage(kind: ErrorKind, message: &str) -> ! {
    let mut command = Cli::command();
    command.build();
    let get = command.find_subcommand_mut("weights").and_then(|weights| weights.find_subcommand_mut("get"));
    get.expect("the command that runs").error(kind, message).exit()
}

/// 553433881 → 553.4 MB.
fn megabytes(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
