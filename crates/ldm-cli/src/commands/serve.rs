//! `ldm serve`: models behind HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ldm_core::device::parse_dtype_for;
use ldm_serve::{Access, ErrorKind, Limits, ResultRetention, ServeError, ServeOptions, Server};
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
    if !args.host.to_canonical().is_loopback() && options.access.is_open() {
        Printer::warn("everyone who can reach this address may use the server; see --api-key");
    }
    let kind = options.kind;
    let runtime = tokio::runtime::Runtime::new().context("threads")?;
    let result: anyhow::Result<()> = runtime.block_on(async {
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
    });
    // Work for clients that have gone is not waited for.
    runtime.shutdown_background();
    if let Err(error) = &result
        && error.downcast_ref::<ServeError>().is_some_and(|error| error.kind == ErrorKind::Stopping)
    {
        Printer::warn(&error.to_string());
        // Without destructors: the worker still uses libtorch. The journal is complete at any time.
        exit(0);
    }
    result
}

fn options(args: &ServeArgs, printer: Printer) -> anyhow::Result<ServeOptions> {
    let mut keys = args.api_key.clone();
    if let Some(key) = std::env::var_os("LDM_API_KEY") {
        let key = key.into_string().map_err(|_| anyhow!("LDM_API_KEY: expected a key in UTF-8"))?;
        keys.push(key);
    }
    if keys.iter().any(|key| key.trim().is_empty()) {
        bail!("--api-key: expected a key, got an empty one");
    }
    let whole = |user: &&String| {
        user.split_once(':').is_some_and(|(name, password)| !name.is_empty() && !password.is_empty())
    };
    if let Some(user) = args.user.iter().find(|user| !whole(user)) {
        let name = user.split(':').next().unwrap_or_default();
        bail!("--user: expected NAME:PASSWORD, got a text without one of both: {name}");
    }
    let device = model::device(&args.device, Some(printer))?;
    let bytes = args.max_body.saturating_mul(1 << 20);
    Ok(ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        models: args.models.clone(),
        loaded_models: args.loaded_models,
        loras: args.loras.clone(),
        embeddings: args.embeddings.clone(),
        runs: args.runs.clone(),
        data: args.data.clone(),
        device,
        kind: parse_dtype_for(&args.dtype, device)?,
        batch_size: args.batch_size,
        limits: Limits {
            body: bytes,
            bodies: bytes.saturating_mul(4),
            pixels: args.max_pixels,
            steps: args.max_steps,
            work: args.max_work,
            images: args.max_images,
            queue: args.queue,
            connections: args.max_connections,
            job: (args.max_seconds > 0).then(|| Duration::from_secs(args.max_seconds)),
            ..Limits::default()
        },
        retention: ResultRetention {
            age: Duration::from_secs(args.keep_hours.saturating_mul(3600)),
            bytes: args.keep_size.saturating_mul(1 << 30),
            ..ResultRetention::default()
        },
        access: Access {
            keys,
            users: args.user.clone(),
            hosts: args.allowed_host.clone(),
            origins: args.cors.clone(),
        },
    })
}
