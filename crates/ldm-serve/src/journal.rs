//! The journal: every accepted job in an SQLite file, so that none is lost.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::files::sync_file;
use crate::job::{JobImage, JobProgress, JobState, JobView};
use crate::{ErrorKind, ServeError};

/// Every accepted job that was not removed.
///
/// A statement is safe from a crash of this program when it returns, and from a power cut once [`sync`](Self::sync) does.
#[derive(Debug)]
pub(crate) struct Journal {
    connection: Mutex<Connection>,
    /// SQLite's write-ahead log, which has the newest statements.
    log: PathBuf,
}

/// Version of the table, in SQLite's `user_version`.
const VERSION: i64 = 1;

const TABLE: &str = "
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        started INTEGER,
        finished INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0,
        steps INTEGER NOT NULL DEFAULT 0,
        request TEXT NOT NULL,
        images TEXT NOT NULL DEFAULT '[]',
        notes TEXT NOT NULL DEFAULT '[]',
        error TEXT
    ) STRICT;
    CREATE INDEX by_state ON jobs (state, number);
    CREATE INDEX by_end ON jobs (finished) WHERE finished IS NOT NULL;
    PRAGMA user_version = 1;
";

const COLUMNS: &str = "id, origin, state, created, started, finished, steps, request, images, notes, error";

impl Journal {
    /// Opens the journal `path`, or creates it, for this server alone.
    ///
    /// # Errors
    /// When it is not a journal of this version, another server has it open, or it cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, ServeError> {
        let at = |error: rusqlite::Error| {
            let busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
            let reason = if busy { "another server has it open".to_owned() } else { error.to_string() };
            ServeError::new(ErrorKind::Storage, format!("{}: {reason}", path.display()))
        };
        make_private_file(path)?;
        let connection = Connection::open(path).map_err(at)?;
        // NORMAL: a statement does not wait for the disk, `sync` does. EXCLUSIVE: one server for one journal.
        let settings = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                        PRAGMA auto_vacuum = INCREMENTAL;";
        connection.execute_batch(settings).map_err(at)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(at)?;
        match version {
            0 => connection.execute_batch(&format!("BEGIN;{TABLE}COMMIT;")).map_err(at)?,
            VERSION => {}
            other => {
                let message =
                    format!("{}: expected a journal of version {VERSION}, got {other}", path.display());
                return Err(ServeError::new(ErrorKind::Storage, message));
            }
        }
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self { connection: Mutex::new(connection), log: log.into() })
    }

    /// Waits until all statements so far are on the disk. Without the lock: while one thread waits others write, and the
    /// disk serves all that wait at once.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn sync(&self) -> Result<(), ServeError> {
        sync_file(&self.log)
    }

    /// Every use of the connection is one statement or transaction, so that a panic leaves it usable.
    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a job that was accepted.
    ///
    /// # Errors
    /// When it cannot be written, and for an ID that exists.
    pub(crate) fn accept(&self, job: &JobView) -> Result<(), ServeError> {
        self.connection().execute(
            "INSERT INTO jobs (id, origin, state, created, request) VALUES (?1, ?2, 'queued', ?3, ?4)",
            params![job.id, job.origin, job.created, json(&job.request)],
        )?;
        Ok(())
    }

    /// Notes that jobs run, before they do: a server that dies of a job does not try forever.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn start(&self, ids: &[&str], started: u64) -> Result<(), ServeError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for id in ids {
            let update = "UPDATE jobs SET state = 'running', started = coalesce(started, ?2), \
                          attempts = attempts + 1 WHERE id = ?1 AND finished IS NULL";
            transaction.execute(update, params![id, started])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Notes that running jobs wait again, since the server stops in order.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn put_back(&self) -> Result<(), ServeError> {
        let update = "UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - 1 WHERE state = 'running'";
        self.connection().execute(update, [])?;
        Ok(())
    }

    /// Writes the end of a job; `bytes` is the size of its files.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(&self, job: &JobView, bytes: u64) -> Result<(), ServeError> {
        self.connection().execute(
            "UPDATE jobs SET state = ?2, finished = ?3, bytes = ?4, steps = ?5, images = ?6, notes = ?7, \
             error = ?8, request = ?9 WHERE id = ?1",
            params![
                job.id,
                job.state.name(),
                job.finished,
                bytes,
                job.progress.steps,
                json(&job.images),
                json(&job.notes),
                job.error.as_ref().map(json),
                json(&job.request),
            ],
        )?;
        Ok(())
    }

    /// The job `id`, as it was last written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn find(&self, id: &str) -> Result<Option<JobView>, ServeError> {
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
        Ok(self.connection().query_row(&query, [id], read).optional()?)
    }

    /// The jobs that are done, each with the size of its files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn done(&self) -> Result<Vec<(String, u64)>, ServeError> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT id, bytes FROM jobs WHERE state = 'done'")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes that a job that had ended waits again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn reopen(&self, id: &str) -> Result<(), ServeError> {
        let update = "UPDATE jobs SET state = 'queued', started = NULL, finished = NULL, attempts = 0, bytes = 0, \
                      images = '[]' WHERE id = ?1";
        self.connection().execute(update, [id])?;
        Ok(())
    }

    /// True for a job of the journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn has(&self, id: &str) -> Result<bool, ServeError> {
        let query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1)";
        Ok(self.connection().query_row(query, [id], |row| row.get(0))?)
    }

    /// Jobs that ended, the newest first, `count` of them after the first `skip`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn ended(&self, skip: usize, count: usize) -> Result<Vec<JobView>, ServeError> {
        let query = format!(
            "SELECT {COLUMNS} FROM jobs WHERE finished IS NOT NULL ORDER BY finished DESC, number DESC LIMIT ?1 OFFSET ?2"
        );
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&query)?;
        // SQLite's integers are signed.
        let skip = i64::try_from(skip).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![count, skip], |row| Ok(whole(row, read(row))))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The jobs that have not ended, the oldest first, each with the number of times that a server died while it ran.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn unfinished(&self) -> Result<Vec<(JobView, u32)>, ServeError> {
        let query = format!("SELECT {COLUMNS}, attempts FROM jobs WHERE finished IS NULL ORDER BY number");
        let connection = self.connection();
        let mut statement = connection.prepare(&query)?;
        let job = |row: &Row| Ok((read(row)?, row.get("attempts")?));
        let rows = statement.query_map([], |row| Ok(whole(row, job(row))))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The oldest jobs that ended before `time`, or beyond `bytes` of results, or beyond `jobs`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn expired(&self, time: u64, bytes: u64, jobs: u64) -> Result<Vec<String>, ServeError> {
        let query = "SELECT id FROM (SELECT id, finished, number, sum(bytes + octet_length(request) + \
                     octet_length(images) + octet_length(notes)) OVER newest AS total, \
                     row_number() OVER newest AS place FROM jobs WHERE finished IS NOT NULL \
                     WINDOW newest AS (ORDER BY finished DESC, number DESC)) \
                     WHERE finished < ?1 OR total > ?2 OR place > ?3";
        let connection = self.connection();
        let mut statement = connection.prepare_cached(query)?;
        // SQLite's integers are signed.
        let [bytes, jobs] = [bytes, jobs].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let rows = statement.query_map(params![time, bytes, jobs], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes a job.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn remove(&self, id: &str) -> Result<(), ServeError> {
        let connection = self.connection();
        connection.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Returns the pages of removed jobs to the file system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn shrink(&self) -> Result<(), ServeError> {
        Ok(self.connection().execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")?)
    }
}

/// Makes the file for this account alone; SQLite gives its other files the same mode.
fn make_private_file(path: &Path) -> Result<(), ServeError> {
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map_err(|error| ServeError::new(ErrorKind::Storage, format!("{}: {error}", path.display())))?;
    Ok(())
}

/// A row, or none and a warning: one job that another version wrote does not hide the others.
fn whole<T>(row: &Row, read: rusqlite::Result<T>) -> Option<T> {
    let id = row.get::<_, String>("id").unwrap_or_default();
    read.inspect_err(|error| tracing::warn!(job = id, %error, "an entry of the journal cannot be read")).ok()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers")
}

/// Reads the columns `COLUMNS`.
fn read(row: &Row) -> rusqlite::Result<JobView> {
    fn parsed<T: serde::de::DeserializeOwned>(row: &Row, column: &'static str) -> rusqlite::Result<T> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|error| {
            let index = row.as_ref().column_index(column).unwrap_or_default();
            rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
        })
    }
    let (state, images): (String, Vec<JobImage>) = (row.get("state")?, parsed(row, "images")?);
    let state = JobState::parse(&state).unwrap_or(JobState::Queued);
    let steps: usize = row.get("steps")?;
    let error: Option<String> = row.get("error")?;
    Ok(JobView {
        id: row.get("id")?,
        origin: row.get("origin")?,
        state,
        position: None,
        created: row.get("created")?,
        started: row.get("started")?,
        finished: row.get("finished")?,
        progress: JobProgress {
            step: if state == JobState::Done { steps } else { 0 },
            steps,
            ..JobProgress::default()
        },
        request: parsed(row, "request")?,
        images,
        notes: parsed(row, "notes")?,
        error: error.and_then(|text| serde_json::from_str(&text).ok()),
    })
}
