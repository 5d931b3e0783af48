//! `ldm serve`: models behind HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use ldm_core::device::parse_dtype;
use ldm_serve::{Access, Limits, ResultRetention, ServeOptions, Server};
use signal_hook::low_level::exit;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ServeArgs;
use crate::model;
use crate::progress::Printer;
use crate::terminal::outln;

/// The exit code after SIGINT.
const INTERRUPTED: i32 = 130;

pub(crate) fn run(args: &ServeArgs, printer: Printer) -> anyhow::Result<()> {
    ldm_serve::log_to_stderr(printer.level(), args.log_json);
    // Threads that spin while they wait would take the time of those that answer.
    ldm_libtorch::limit_spinning();
    let child = args.child.then(|| ldm_serve::end_with_stdin(|| exit(0))).transpose()?;
    let mut options = options(args, printer)?;
    if let Some(folder) = &child {
        options.data = folder.as_ref().into();
    }
    if !args.host.is_loopback() && options.access.is_open() {
        Printer::warn("everyone who can reach this address may use the server; see --api-key");
    }
    let kind = options.kind;
    tokio::runtime::Runtime::new().context("threads")?.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let server = Server::start(options).await?;
        model::keep_freed_memory(kind);
        outln!("http://{}", server.address())?;
        let run = server.run(async move {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            tokio::spawn(async move {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                exit(INTERRUPTED); // the journal is complete at any time
            });
        });
        Ok(run.await?)
    })
}

fn options(args: &ServeArgs, printer: Printer) -> anyhow::Result<ServeOptions> {
    let mut keys = args.api_key.clone();
    keys.extend(std::env::var("LDM_API_KEY"));
    if keys.iter().any(|key| key.trim().is_empty()) {
        bail!("--api-key: expected a key, got an empty one");
    }
    if let Some(user) =
        args.user.iter().find(|user| user.split_once(':').is_none_or(|(name, _)| name.is_empty()))
    {
        let name = user.split(':').next().unwrap_or_default();
        bail!("--user: expected NAME:PASSWORD, got a text without one of both: {name}");
    }
    Ok(ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        models: args.models.clone(),
        loaded_models: args.loaded_models,
        loras: args.loras.clone(),
        embeddings: args.embeddings.clone(),
        runs: args.runs.clone(),
        data: args.data.clone(),
        device: model::device(&args.device, Some(printer))?,
        kind: parse_dtype(&args.dtype)?,
        batch_size: args.batch_size,
        limits: Limits {
            body: args.max_body.saturating_mul(1 << 20),
            pixels: args.max_pixels,
            steps: args.max_steps,
            images: args.max_images,
            queue: args.queue,
            connections: args.max_connections,
            job: args.max_seconds.map(Duration::from_secs),
            ..Limits::default()
        },
        retention: ResultRetention {
            age: Duration::from_secs(args.keep_hours.saturating_mul(3600)),
            bytes: args.keep_size.saturating_mul(1 << 30),
        },
        access: Access { keys, users: args.user.clone(), origins: args.cors.clone() },
    })
}
