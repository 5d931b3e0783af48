//! Jobs as streams of events: partial images while they run, and complete ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageFormat, ImageReader};
use ldm_core::image as images;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::answer::{self, TokenUsage};
use super::fields::AnswerForm;
use crate::answers::ErrorBody;
use crate::job::{Job, JobPreview, Status};
use crate::server::App;
use crate::{ErrorKind, ServeError, base64_image};

/// The events of a job. Nothing happens to the job when the stream is dropped.
pub(super) fn events(
    app: Arc<App>,
    job: Arc<Job>,
    form: AnswerForm,
    kind: &'static str,
    waiting: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut status = job.status.subscribe();
    // What is there already is news.
    status.mark_changed();
    let pending = VecDeque::new();
    let follower = Follower {
        app,
        job,
        status,
        form,
        kind,
        partial: 0,
        complete: Vec::new(),
        pending,
        over: false,
        _waiting: waiting,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// A job, and what of it was sent.
struct Follower {
    app: Arc<App>,
    job: Arc<Job>,
    status: watch::Receiver<Status>,
    form: AnswerForm,
    /// `image_generation` or `image_edit`.
    kind: &'static str,
    /// Partial images so far.
    partial: usize,
    /// The places of complete images so far.
    complete: Vec<usize>,
    pending: VecDeque<Event>,
    over: bool,
    _waiting: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.follow().await {
                self.fail(&error);
            }
        }
    }

    /// Waits for a change, and appends its events.
    async fn follow(&mut self) -> Result<(), ServeError> {
        let mut stopping = self.app.stopping.subscribe();
        tokio::select! {
            biased;
            changed = self.status.changed() => changed.map_err(|_| stopped())?,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
        }
        let status = self.status.borrow_and_update().clone();
        if let Some(preview) = status.preview.as_ref().filter(|_| self.wants_partial(&status)) {
            let (preview, form) = (Arc::clone(preview), self.form.clone());
            let [width, height] = preview.size;
            let image = self.app.images.finish(move || enlarged(&preview, &form)).await?;
            let index = json!({"partial_image_index": self.partial});
            self.send("partial_image", &image, &format!("{width}x{height}"), index);
            self.partial += 1;
        }
        for image in &status.images {
            if !self.complete.contains(&image.index) {
                self.complete.push(image.index);
                let file = answer::encoded(&self.app, &self.job.id, image.index, &self.form).await?;
                let rest = json!({"usage": TokenUsage::default(), "seed": image.seed});
                self.send("completed", &file, &answer::size(image), rest);
            }
        }
        if status.state.is_final() {
            match answer::failure(&status) {
                Some(error) => self.fail(&error),
                None => self.end(),
            }
        }
        Ok(())
    }

    /// True once so much is sampled that the next partial image is due: they are spread over the steps.
    fn wants_partial(&self, status: &Status) -> bool {
        let (wanted, sent) = (self.form.partial_images, self.partial);
        sent < wanted && status.steps > 0 && status.step * (wanted + 1) >= status.steps * (sent + 1)
    }

    fn send(&mut self, event: &str, image: &str, size: &str, rest: Value) {
        let name = format!("{}.{event}", self.kind);
        let mut data = json!({
            "type": name,
            "b64_json": image,
            "created_at": answer::seconds(),
            "size": size,
            "quality": self.form.quality.as_deref().unwrap_or("auto"),
            "background": "opaque",
            "output_format": self.form.format,
        });
        if let (Value::Object(data), Value::Object(rest)) = (&mut data, rest) {
            data.extend(rest);
        }
        self.pending.push_back(Event::default().event(name).json_data(data).unwrap_or_default());
    }

    /// Ends with an error, which has the keys of an answer's.
    fn fail(&mut self, error: &ServeError) {
        let data = ErrorBody::from(error.clone());
        self.pending.push_back(Event::default().event("error").json_data(data).unwrap_or_default());
        self.end();
    }

    fn end(&mut self) {
        self.pending.push_back(Event::default().data("[DONE]"));
        self.over = true;
    }
}

/// Base64 of a preview in the size of the image that it shows.
fn enlarged(preview: &JobPreview, form: &AnswerForm) -> Result<String, ServeError> {
    let small = ImageReader::with_format(Cursor::new(&preview.png), ImageFormat::Png).decode();
    let small = small.map_err(|error| ServeError::new(ErrorKind::Internal, error.to_string()))?.into_rgb8();
    let [width, height] = preview.size;
    let large = imageops::resize(&small, width, height, FilterType::CatmullRom);
    let png = images::png(&DynamicImage::ImageRgb8(large), &[]);
    Ok(base64_image::encode(&form.format.encode(png, form.compression)?))
}

fn stopped() -> ServeError {
    ServeError::new(ErrorKind::Stopping, "the server is stopping; the job runs at its next start")
}
