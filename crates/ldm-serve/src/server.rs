//! The server: its state, start and stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::bodies::BodyMemory;
use crate::connection::fitting_connections;
use crate::image_work::ImageWork;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::options::ServeOptions;
use crate::waits::Waits;
use crate::worker::Worker;
use crate::{ErrorKind, ServeError, connection, router};

/// The time that a running batch has to end when the server stops; later it is sampled anew at the next start.
const GRACE: Duration = Duration::from_secs(20);
/// The time that the batch then has to stop at its next step.
const LAST_STEP: Duration = Duration::from_secs(5);
/// The time between two looks for expired results.
const EXPIRY: Duration = Duration::from_mins(1);

/// The state that every handler has.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) options: ServeOptions,
    pub(crate) models: Arc<Models>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bodies: BodyMemory,
    pub(crate) images: ImageWork,
    /// Requests that wait for the end of a job, and streams of events.
    pub(crate) waits: Waits,
    /// The address that it listens on.
    pub(crate) address: SocketAddr,
    /// The name of this machine.
    pub(crate) host_name: Option<String>,
    /// True once the server stops.
    pub(crate) stopping: watch::Sender<bool>,
    /// Options that clients of AUTOMATIC1111's API have set.
    pub(crate) sdapi: crate::sdapi::SdapiState,
}

/// A server with its models loaded, which listens.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    /// Resolves when the worker has ended.
    worker: oneshot::Receiver<()>,
    abort: Arc<AtomicBool>,
}

impl Server {
    /// Opens the models and the journal, and listens.
    ///
    /// # Errors
    /// As opening of models ([`ldm::Pipeline::open`]); when the journal belongs to another server or cannot be written, or
    /// the address is in use.
    pub async fn start(mut options: ServeOptions) -> Result<Self, ServeError> {
        options.access.check()?;
        options.limits.connections = fitting_connections(options.limits.connections);
        let listener = TcpListener::bind(options.address).await.map_err(|error| {
            ServeError::new(ErrorKind::Invalid, format!("{}: {error}; try another --port", options.address))
        })?;
        let address = listener.local_addr()?;
        let jobs = Arc::new(Jobs::open(&options.data, &options.limits)?);
        let (models, cache) = Models::open(&options)?;
        let (models, metrics) = (Arc::new(models), Arc::new(Metrics::default()));
        let abort = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            jobs: Arc::clone(&jobs),
            models: Arc::clone(&models),
            cache,
            metrics: Arc::clone(&metrics),
            batch_size: options.batch_size.max(1),
            limits: options.limits.clone(),
            abort: Arc::clone(&abort),
        };
        let (ended, end) = oneshot::channel();
        let device = options.device;
        std::thread::Builder::new().name("worker".into()).spawn(move || {
            // That of the thread which chose the device is not this one's.
            if let tch::Device::Cuda(index) = device
                && let Err(error) = ldm_libtorch::set_cuda_device(index)
            {
                tracing::warn!("{error}");
            }
            worker.run();
            let _ = ended.send(());
        })?;
        let limits = &options.limits;
        let (stopping, sdapi) = (watch::Sender::new(false), crate::sdapi::SdapiState::default());
        let (bodies, images) = (BodyMemory::new(limits.bodies.max(limits.body)), ImageWork::new());
        let waits = Waits::new(limits.connections);
        let host_name = sysinfo::System::host_name();
        let app = App {
            options,
            models,
            jobs,
            metrics,
            bodies,
            images,
            waits,
            address,
            host_name,
            stopping,
            sdapi,
        };
        Ok(Self { app: Arc::new(app), listener, worker: end, abort })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// Serves until `stop` resolves, then refuses new jobs, lets the running batch end, and closes the connections. Jobs that
    /// wait run at the next start.
    ///
    /// # Errors
    /// When the journal cannot be written at the end; [`ErrorKind::Stopping`] when the worker is still at a step that cannot be
    /// stopped, after which the process should end without waiting for its threads.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { app, listener, worker, abort } = self;
        let expiry = tokio::spawn(expire(Arc::clone(&app)));
        let connections = connection::serve(listener, router::router(&app), Arc::clone(&app));
        let connections = tokio::spawn(connections);
        stop.await;
        tracing::info!("stopping");
        app.jobs.stop();
        expiry.abort();
        tokio::pin!(worker);
        let mut idle = tokio::time::timeout(GRACE, &mut worker).await.is_ok();
        if !idle {
            abort.store(true, Ordering::Relaxed);
            idle = tokio::time::timeout(LAST_STEP, &mut worker).await.is_ok();
        }
        app.jobs.write_ends();
        app.jobs.put_back()?;
        // After the worker: answers of jobs that have ended are still sent.
        app.stopping.send_replace(true);
        let _ = connections.await;
        if !idle {
            let message = "the running batch did not end in time; its jobs run at the next start";
            return Err(ServeError::new(ErrorKind::Stopping, message));
        }
        Ok(())
    }
}

/// Removes results beyond the retention, again and again.
async fn expire(app: Arc<App>) {
    loop {
        let (jobs, retention) = (Arc::clone(&app.jobs), app.options.retention);
        let expired = tokio::task::spawn_blocking(move || {
            let result = jobs.expire(retention);
            jobs.write_ends();
            result
        });
        let result = expired.await;
        if let Ok(Err(error)) = result {
            tracing::error!(%error, "results could not be removed");
        }
        tokio::time::sleep(EXPIRY).await;
    }
}
