//! An HTTP server of latent diffusion models.
//!
//! [`Server::start`] opens models, and [`Server::run`] answers a page, AUTOMATIC1111's API (`/sdapi/v1`), OpenAI's images
//! API (`/v1/images`), and an API of its own (`/v1/jobs`), which can say what the others cannot. Every request is a job in
//! one queue, which is on the disk: it outlives its connection, and the server.

mod active;
mod answers;
mod base64_image;
mod bodies;
mod check;
mod child;
mod connection;
mod encoding;
mod ends;
mod error;
mod files;
mod image_work;
mod job;
mod jobs;
mod journal;
mod json;
mod logging;
mod metrics;
mod models;
mod openai;
mod openapi;
mod options;
mod page;
mod parameters;
mod queue;
mod render;
mod request;
mod router;
mod sdapi;
mod security;
mod server;
mod submit;
mod v1;
mod waits;
mod worker;

pub use child::end_with_stdin;
pub use error::{ErrorKind, ServeError};
pub use job::{JobImage, JobProgress, JobState, JobView};
pub use logging::log_to_stderr;
pub use models::{ConditionedOn, ModelInfo};
pub use options::{Access, Limits, ResultRetention, ServeOptions};
pub use request::{BoxRequest, GenerationRequest, HiresRequest, LoraRequest, VariationRequest};
pub use server::Server;
