//! Connections: how many, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::server::App;

/// The time in which open answers may end once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes of the head of a request.
const LARGEST_HEAD: usize = 64 << 10;

/// Open files of a server besides its connections: the journal, the files of jobs, models, libraries.
const OTHER_FILES: usize = 100;

/// Raises the limit of open files as far as the system lets this program, and returns the connections that fit, of `wanted`.
pub(crate) fn fitting_connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let files = current.map_or(usize::MAX, |files| files as usize);
    let fitting = wanted.min(files.saturating_sub(OTHER_FILES).max(1));
    if fitting < wanted {
        tracing::warn!(
            "{files} files may be open: at most {fitting} connections, not {wanted}; see ulimit -n"
        );
    }
    fitting
}

/// Serves HTTP/1.1 connections until the server stops. A client must send heads in time, and take what it is sent.
pub(crate) async fn serve(listener: TcpListener, router: Router, app: Arc<App>) {
    let room = Arc::new(Semaphore::new(app.options.limits.connections));
    let graceful = GracefulShutdown::new();
    let mut stopping = app.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, most likely: others must close first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Beyond the limit a connection is closed at once, which a client sees.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let limits = &app.options.limits;
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write));
        let service = router.clone().map_request(|request: Request<Incoming>| request.map(Body::new));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.read)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        let app = Arc::clone(&app);
        app.metrics.connected();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection");
            }
            app.metrics.disconnected();
            drop(permit);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = Rlimit { current: Some(256), maximum: hard };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(fitting_connections(10), 10);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
        let files = hard.map_or(usize::MAX, |files| files as usize);
        assert_eq!(fitting_connections(usize::MAX), files - OTHER_FILES);
    }
}
