//! Arguments of `ldm serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;
use super::numbers::image_count;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Models, as for --model, or NAME=MODEL; the first one is the default. Each is opened once at the start.
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<String>,
    /// Address; 0.0.0.0 is every one of this machine.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port; 0 is any free one.
    #[arg(long, default_value_t = 7860)]
    pub(crate) port: u16,
    /// Folder of the queue and the results, for one server at a time.
    #[arg(long, value_name = "FOLDER", default_value = "outputs/serve")]
    pub(crate) data: PathBuf,
    /// Serve the program that started it: end as soon as stdin closes, and keep nothing on the disk.
    #[arg(long, conflicts_with = "data")]
    pub(crate) child: bool,
    /// Models kept in memory at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = image_count)]
    pub(crate) loaded_models: usize,
    /// Folder of LoRAs, which requests name.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) loras: Option<PathBuf>,
    /// Folder of learned words (textual inversion).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) embeddings: Option<PathBuf>,
    /// Folder of training runs to show.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) runs: Option<PathBuf>,
    /// Images sampled at once, of one request or of several with the same settings.
    #[arg(long, default_value_t = 8, value_parser = image_count)]
    pub(crate) batch_size: usize,
    /// Dtype of the weights: f32, bf16, f16, or auto: bf16 on GPUs and CPUs that multiply it, else f32.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Key that clients must send, as a bearer token or as the password of Basic; repeatable. Also LDM_API_KEY.
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
    /// User of Basic authentication, NAME:PASSWORD; repeatable.
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Vec<String>,
    /// Name of the server besides its address, localhost and the machine's; without keys and users it answers to no other;
    /// repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) allowed_host: Vec<String>,
    /// Origin whose pages may send requests, as https://example.org, or * for every one; repeatable.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors: Vec<String>,
    /// Jobs that may wait.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) queue: usize,
    /// Largest image in pixels.
    #[arg(long, value_name = "N", default_value_t = 4 << 20)]
    pub(crate) max_pixels: u64,
    /// Most sampling steps.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_steps: usize,
    /// Most images of a request.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_images: usize,
    /// Most images x steps x megapixels of a request.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_work: u64,
    /// Largest body of a request in megabytes; all bodies together take four times as much.
    #[arg(long, value_name = "MB", default_value_t = 64)]
    pub(crate) max_body: usize,
    /// Most open connections.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_connections: usize,
    /// Longest time of a job in seconds, from its start; 0 is no limit.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) max_seconds: u64,
    /// Hours for which results are kept.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub(crate) keep_hours: u64,
    /// Gigabytes of results that are kept, the newest.
    #[arg(long, value_name = "GB", default_value_t = 4)]
    pub(crate) keep_size: u64,
    /// Log in JSON lines.
    #[arg(long)]
    pub(crate) log_json: bool,
}
