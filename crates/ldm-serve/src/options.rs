//! Settings of a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tch::{Device, Kind};

use crate::{ErrorKind, ServeError};

/// Settings of a [`Server`](crate::Server).
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// The models, of which the first is the default one: paths as [`Pipeline::open`](ldm::Pipeline::open) takes them, or
    /// `NAME=PATH`.
    pub models: Vec<String>,
    /// Models that are kept in memory at a time, at least 1.
    pub loaded_models: usize,
    /// A folder of LoRA files, which requests name without their extension.
    pub loras: Option<PathBuf>,
    /// A folder of learned words (textual inversion), which every text model by CLIP gets.
    pub embeddings: Option<PathBuf>,
    /// A folder of training runs to show.
    pub runs: Option<PathBuf>,
    /// The folder of the journal and the results. It belongs to one server at a time.
    pub data: PathBuf,
    /// The device of the models.
    pub device: Device,
    /// The dtype of the weights.
    pub kind: Kind,
    /// Images that are sampled at once, at least 1.
    pub batch_size: usize,
    /// Bounds of requests.
    pub limits: Limits,
    /// Results that are kept.
    pub retention: ResultRetention,
    /// Who may send requests.
    pub access: Access,
}

/// Bounds of requests and connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all bodies in memory together; at least one of [`body`](Self::body) fits.
    pub bodies: usize,
    /// Pixels of an image, generated or given.
    pub pixels: u64,
    /// Sampling steps.
    pub steps: usize,
    /// Images times steps times megapixels of a job.
    pub work: u64,
    /// Images of a job.
    pub images: usize,
    /// Characters of a prompt.
    pub prompt: usize,
    /// Jobs that wait.
    pub queue: usize,
    /// Bytes of the texts and files of jobs that wait.
    pub queue_bytes: u64,
    /// Open connections.
    pub connections: usize,
    /// The time in which a client must have sent the head of a request, and the time that its body may stall.
    pub read: Duration,
    /// The time in which a client must have taken a part of an answer.
    pub write: Duration,
    /// The longest time from the start of a job to its last image; none is unlimited.
    pub job: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            bodies: 256 << 20,
            pixels: 4 << 20,
            steps: 1000,
            work: 4096,
            images: 64,
            prompt: 20_000,
            queue: 1000,
            queue_bytes: 1 << 30,
            connections: 4096,
            read: Duration::from_secs(15),
            write: Duration::from_secs(30),
            job: Some(Duration::from_hours(1)),
        }
    }
}

/// ResultRetention of results: the oldest finished jobs are removed beyond either bound.
#[derive(Debug, Clone, Copy)]
pub struct ResultRetention {
    /// The age from the end of the job on.
    pub age: Duration,
    /// Bytes of all results and of their requests.
    pub bytes: u64,
    /// The number of jobs.
    pub jobs: u64,
}

impl Default for ResultRetention {
    fn default() -> Self {
        Self { age: Duration::from_hours(24), bytes: 4 << 30, jobs: 10_000 }
    }
}

/// Credentials, and the origins of other pages.
#[derive(Clone, Default)]
pub struct Access {
    /// Keys, any of which serves as `Authorization: Bearer KEY`, or as the password of Basic with any name. Without keys and
    /// users everyone may send requests.
    pub keys: Vec<String>,
    /// `NAME:PASSWORD` of Basic.
    pub users: Vec<String>,
    /// Names of this server besides its address and `localhost`: without keys and users it answers to no others.
    pub hosts: Vec<String>,
    /// Origins whose pages may send requests (CORS), as `https://example.org`; `*` is every one.
    pub origins: Vec<String>,
}

impl Access {
    /// True where everyone may send requests.
    pub fn is_open(&self) -> bool {
        self.keys.is_empty() && self.users.is_empty()
    }
}

impl Access {
    /// Checks that browsers do not send the credentials of their users for every page.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for users together with every origin.
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        if self.users.is_empty() || !self.origins.iter().any(|origin| origin == "*") {
            return Ok(());
        }
        let message = "expected origins by name together with users, whose passwords browsers keep, got *";
        Err(ServeError::new(ErrorKind::Invalid, message))
    }
}

/// Without the secrets.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("keys", &self.keys.len())
            .field("users", &self.users.len())
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .finish()
    }
}
