//! Counters for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ErrorKind;

type Seconds = Counter<f64, AtomicU64>;

/// The figures of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answer, Counter>,
    images: Counter,
    steps: Counter,
    sampling: Seconds,
    done: Counter,
    failed: Family<Reason, Counter>,
    waiting: Gauge,
    connections: Gauge,
}

/// The class of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: ReasonLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReasonLabel {
    Request,
    Time,
    Storage,
    Server,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("ldm"),
            requests: Family::default(),
            images: Counter::default(),
            steps: Counter::default(),
            sampling: Seconds::default(),
            done: Counter::default(),
            failed: Family::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Answers by status", metrics.requests.clone());
        registry.register("images", "Images generated", metrics.images.clone());
        registry.register("steps", "Sampling steps of images", metrics.steps.clone());
        registry.register(
            "sampling_seconds",
            "Time spent on sampling and decoding",
            metrics.sampling.clone(),
        );
        registry.register("jobs_done", "Jobs that ended with images", metrics.done.clone());
        registry.register("jobs_failed", "Jobs that ended with an error", metrics.failed.clone());
        registry.register("jobs_waiting", "Jobs in the queue", metrics.waiting.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        metrics
    }
}

impl Metrics {
    pub(crate) fn answered(&self, status: u16) {
        self.requests.get_or_create(&Answer { status }).inc();
    }

    pub(crate) fn sampled(&self, images: usize, steps: usize, seconds: f64) {
        self.images.inc_by(images as u64);
        self.steps.inc_by(steps as u64);
        self.sampling.inc_by(seconds);
    }

    pub(crate) fn finished(&self) {
        self.done.inc();
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        let reason = match kind {
            ErrorKind::Internal => ReasonLabel::Server,
            ErrorKind::TimedOut => ReasonLabel::Time,
            ErrorKind::Storage => ReasonLabel::Storage,
            _ => ReasonLabel::Request,
        };
        self.failed.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self, waiting: usize) -> String {
        self.waiting.set(waiting as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string");
        text
    }
}
