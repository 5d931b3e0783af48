//! Training runs: their metrics, samples and configs, read from their folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::server::App;
use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

const METRICS: &str = "metrics.jsonl";
/// Folders below that of the runs in which runs are looked for.
const DEPTH: usize = 3;
/// Points of a series that a chart can show.
const POINTS: usize = 2000;

/// The runs of the server's folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunList {
    runs: Vec<RunSummary>,
}

/// A run in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunSummary {
    /// The path below the folder of runs.
    name: String,
    /// The newest step with metrics.
    step: u64,
    /// The steps of the config.
    steps: Option<u64>,
    state: RunState,
    /// When its metrics were last written, in milliseconds since 1970.
    updated: u64,
}

/// The state of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RunState {
    /// A program trains it.
    Running,
    /// None does.
    Ended,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunView {
    /// The path below the folder of runs.
    name: String,
    /// The newest step with metrics.
    step: u64,
    /// The steps of the config.
    steps: Option<u64>,
    state: RunState,
    /// When its metrics were last written, in milliseconds since 1970.
    updated: u64,
    /// Its config, YAML.
    config: String,
    /// Names of its metrics.
    keys: Vec<String>,
    samples: Vec<RunSample>,
}

/// Samples of a step.
#[derive(Debug, Serialize, ToSchema)]
struct RunSample {
    step: u64,
    /// The path of the PNG at this server.
    url: String,
}

/// Metrics by step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunMetrics {
    /// `[step, value]` of each metric.
    series: BTreeMap<String, Vec<(u64, f64)>>,
}

/// A part of the metrics.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsQuery {
    /// Steps above this one.
    since: Option<u64>,
    /// At most so many points of a series, evenly chosen; 2000 at most.
    points: Option<usize>,
}

/// `GET /v1/runs`.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<RunList>, ServeError> {
    blocking(move || {
        let root = root(&app)?;
        let mut folders = Vec::new();
        find_runs(root, DEPTH, &mut folders);
        let each = folders.iter().filter_map(|folder| summary(root, folder).ok());
        let mut runs: Vec<_> = each.collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.updated));
        Ok(Json(RunList { runs }))
    })
    .await
}

/// `GET /v1/runs/{name}`, where slashes of the name are `%2F`.
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<RunView>, ServeError> {
    blocking(move || {
        let (root, folder) = (root(&app)?, run_folder(&app, &name)?);
        let RunSummary { step, steps, state, updated, .. } = summary(root, &folder)?;
        let config = read_text(&folder.join("config.yaml"));
        let keys = series(&folder, None)?.into_keys().collect();
        let mut samples: Vec<_> = sample_files(&folder)
            .into_iter()
            .map(|(step, file)| RunSample {
                step,
                url: format!("/v1/runs/{}/samples/{file}", escaped(&name)),
            })
            .collect();
        samples.sort_by_key(|sample| sample.step);
        Ok(Json(RunView { name, step, steps, state, updated, config, keys, samples }))
    })
    .await
}

/// `GET /v1/runs/{name}/metrics`.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<MetricsQuery>,
) -> Result<Json<RunMetrics>, ServeError> {
    blocking(move || {
        let mut series = series(&run_folder(&app, &name)?, query.since)?;
        let points = query.points.unwrap_or(POINTS).clamp(2, POINTS);
        for values in series.values_mut() {
            thin(values, points);
        }
        Ok(Json(RunMetrics { series }))
    })
    .await
}

/// `GET /v1/runs/{name}/samples/{file}`.
pub(crate) async fn sample(
    State(app): State<Arc<App>>,
    UrlPath((name, file)): UrlPath<(String, String)>,
) -> Result<Response, ServeError> {
    blocking(move || {
        let folder = run_folder(&app, &name)?;
        // A name from the folder's own list, never a path of the request.
        let known = sample_files(&folder).into_iter().find(|(_, known)| *known == file);
        let (_, file) = known.ok_or_else(|| ServeError::new(ErrorKind::NotFound, "no such samples"))?;
        let file = open_regular(&folder.join("samples").join(file))?;
        let mut bytes = Vec::new();
        file.take(LARGEST_SAMPLE).read_to_end(&mut bytes)?;
        let headers = [(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "private, max-age=60")];
        Ok((headers, bytes).into_response())
    })
    .await
}

fn root(app: &App) -> Result<&Path, ServeError> {
    let runs = app.options.runs.as_deref();
    runs.ok_or_else(|| ServeError::new(ErrorKind::NotFound, "this server shows no runs; see --runs"))
}

/// The folder of a run, by a name of the list.
fn run_folder(app: &App, name: &str) -> Result<PathBuf, ServeError> {
    let root = root(app)?;
    let mut folders = Vec::new();
    find_runs(root, DEPTH, &mut folders);
    let found = folders.into_iter().find(|folder| name_of(root, folder) == name);
    found.ok_or_else(|| ServeError::new(ErrorKind::NotFound, "no such run"))
}

fn name_of(root: &Path, folder: &Path) -> String {
    folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned()
}

/// A name as one part of a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let each = name
        .bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") });
    each.collect()
}

/// Folders with metrics; links are not followed.
fn find_runs(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if is_regular(&folder.join(METRICS)) {
        found.push(folder.to_path_buf());
    }
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_runs(&entry.path(), depth - 1, found);
        }
    }
}

fn summary(root: &Path, folder: &Path) -> Result<RunSummary, ServeError> {
    let path = folder.join(METRICS);
    let modified = path.symlink_metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let step = last_line(&path)?.and_then(|line| line.get("step")?.as_u64()).unwrap_or_default();
    let config = read_text(&folder.join("config.yaml"));
    let config: Option<Value> = serde_yaml::from_str(&config).ok();
    let steps = config.and_then(|config| config.get("train")?.get("steps")?.as_u64());
    let state = if is_locked(folder) { RunState::Running } else { RunState::Ended };
    Ok(RunSummary { name: name_of(root, folder), step, steps, state, updated: modified.as_millis() as u64 })
}

/// True while a program holds the run's lock. The kernel's list is read, since to try the lock would be to hold it, and a
/// training that starts at that moment would be refused.
fn is_locked(folder: &Path) -> bool {
    let Ok(lock) = folder.join(".lock").metadata() else { return false };
    let held = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 18359 00:2f:1234567 0 EOF`
    held.lines().any(|line| {
        let inode = line.split_whitespace().nth(5).and_then(|place| place.rsplit(':').next());
        line.contains("FLOCK") && inode.and_then(|inode| inode.parse().ok()) == Some(lock.ino())
    })
}

fn lines(path: &Path) -> Result<impl Iterator<Item = Value>, ServeError> {
    let lines = BufReader::new(open_regular(path)?.take(LARGEST_METRICS)).lines().map_while(Result::ok);
    // The last line may be half written.
    Ok(lines.filter_map(|line| serde_json::from_str(&line).ok()))
}

/// The last line with a step; only the end of the file is read.
fn last_line(path: &Path) -> Result<Option<Value>, ServeError> {
    let mut file = open_regular(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(lines.find(|line| line.get("step").is_some()))
}

/// Bytes of a config that are read.
const LARGEST_CONFIG: u64 = 1 << 20;
/// Bytes of a sample file that are read.
const LARGEST_SAMPLE: u64 = 64 << 20;
/// Bytes of the metrics that are read.
const LARGEST_METRICS: u64 = 256 << 20;
/// Bytes of the end of the metrics in which the last step is looked for.
const TAIL: u64 = 64 << 10;

/// Opens a file of a run: no link, which may lead to any file, and no pipe, which may never have anything to read.
fn open_regular(path: &Path) -> Result<File, ServeError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()));
    file.ok_or_else(|| ServeError::new(ErrorKind::NotFound, "no such file"))
}

fn is_regular(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_file())
}

/// A short text file; empty where there is none.
fn read_text(path: &Path) -> String {
    let mut text = String::new();
    let read = open_regular(path).map(|file| file.take(LARGEST_CONFIG).read_to_string(&mut text));
    if matches!(read, Ok(Ok(_))) { text } else { String::new() }
}

/// Every number of the metrics by step. A step that was trained again counts once, as it was last.
fn series(folder: &Path, since: Option<u64>) -> Result<BTreeMap<String, Vec<(u64, f64)>>, ServeError> {
    let mut series: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for line in lines(&folder.join(METRICS))? {
        let Value::Object(fields) = line else { continue };
        let Some(step) = fields.get("step").and_then(Value::as_u64) else { continue };
        if since.is_some_and(|since| step <= since) {
            continue;
        }
        for (key, value) in fields {
            if let Some(value) = value.as_f64().filter(|value| key != "step" && value.is_finite()) {
                series.entry(key).or_default().insert(step, value);
            }
        }
    }
    Ok(series.into_iter().map(|(key, values)| (key, values.into_iter().collect())).collect())
}

/// Keeps at most `points` values, with the first and the last.
fn thin(values: &mut Vec<(u64, f64)>, points: usize) {
    let count = values.len();
    if count <= points {
        return;
    }
    let at = |index: usize| values[index * (count - 1) / (points - 1)];
    *values = (0..points).map(at).collect();
}

/// Steps and names of the sample files.
fn sample_files(folder: &Path) -> Vec<(u64, String)> {
    let samples = folder.join("samples");
    // A link may lead to any folder.
    let own = samples.symlink_metadata().is_ok_and(|data| data.is_dir());
    let entries = own.then(|| fs::read_dir(samples)).into_iter().flatten().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let each = names.filter_map(|name| {
        let stem = name.strip_suffix(".png")?;
        let digits: String = stem.chars().filter(char::is_ascii_digit).collect();
        Some((digits.parse().ok()?, name.clone()))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_as_far_as_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2,\"val/psnr\":9}\n{\"step\":2,\"loss\":1.5}\n{\"step\":3,\"lo";
        fs::write(folder.path().join(METRICS), text).unwrap();
        let found = series(folder.path(), None).unwrap();
        assert_eq!(found["loss"], [(1, 3.), (2, 1.5)]);
        assert_eq!(found["val/psnr"], [(2, 9.)]);
        assert_eq!(series(folder.path(), Some(1)).unwrap()["loss"], [(2, 1.5)]);
        assert_eq!(last_line(&folder.path().join(METRICS)).unwrap().unwrap()["step"], 2);
    }

    #[test]
    fn long_series_keep_their_ends() {
        let mut values: Vec<_> = (0..1001).map(|step| (step, step as f64)).collect();
        thin(&mut values, 5);
        assert_eq!(values.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 250, 500, 750, 1000]);
    }

    #[test]
    fn names_are_one_part_of_a_path() {
        assert_eq!(escaped("study/f4 run"), "study%2Ff4%20run");
    }
}
