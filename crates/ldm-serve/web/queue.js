// The current job in large, and the queue.

import { previewUrl, imageUrl } from "./api.js";
import { altOf, cancel, resultButtons, settingsOf, titleOf } from "./actions.js";
import { announce, button, byId, duration, el } from "./dom.js";
import { isActive } from "./jobs.js";

/** What a job does now, as a sentence. */
function stateOf(job) {
  const { step, steps, seconds_left: left } = job.progress;
  if (job.state === "queued") return job.position ? `Place ${job.position} in the queue` : "In the queue";
  if (steps === 0) return "Starting…";
  return `Step ${step} of ${steps}` + (left === undefined ? "" : ` · ${left < 1 ? "a moment" : `about ${duration(Math.round(left))}`} left`);
}

/** A picture of a job that runs, which is shown once it is loaded, so that nothing flickers. */
function showPreview(image, job) {
  const { preview } = job.progress;
  image.hidden = image.hidden || preview === undefined;
  if (preview === undefined || image.dataset.number === String(preview)) return;
  image.dataset.number = preview;
  const next = new Image();
  next.addEventListener("load", () => {
    image.src = next.src;
    image.hidden = false;
  });
  next.src = previewUrl(job.id, preview);
}

/** The progress of a job, updated in place so that the focus stays. */
class Running {
  constructor(job, app, large) {
    this.preview = el("img", { class: "preview", alt: "Preview", hidden: true });
    this.bar = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${titleOf(job)}` });
    this.state = el("p", { class: "state" });
    this.stop = button("Cancel", () => {
      this.stop.disabled = true;
      cancel(job, app.jobs);
    }, { "aria-label": `Cancel ${titleOf(job)}` });
    const text = el("div", { class: "grow" },
      el("p", { class: "title", text: titleOf(job) }), this.state, this.bar);
    const frame = el("div", { class: "frame" }, this.preview);
    const size = job.request;
    if (large && size.width && size.height) frame.style.aspectRatio = `${size.width} / ${size.height}`;
    this.element = el(large ? "div" : "li", { class: large ? "running large" : "running" },
      frame, el("div", { class: "row between" }, text, this.stop));
    this.update(job);
  }

  update(job) {
    const { step, steps } = job.progress;
    this.state.textContent = stateOf(job);
    this.bar.hidden = job.state === "queued";
    if (steps > 0) this.bar.value = step / steps;
    else this.bar.removeAttribute("value");
    showPreview(this.preview, job);
  }
}

/** A result in large. */
function result(job, app) {
  const images = job.images.map((image) => {
    const picture = el("img", { src: imageUrl(job.id, image.index), alt: altOf(job, image.index), width: image.width, height: image.height });
    return button("", () => app.viewer.open(job, image.index), { class: "open", "aria-label": `Show large: ${altOf(job, image.index)}` }).appendChild(picture).parentElement;
  });
  const grid = el("div", { class: "images" }, ...images);
  grid.style.setProperty("--columns", Math.min(4, Math.ceil(Math.sqrt(images.length))));
  const notes = (job.notes ?? []).map((text) => el("p", { class: "notice", text }));
  return el("div", { class: "finished" }, images.length > 0 ? grid : null,
    el("p", { class: "title", text: titleOf(job) }),
    el("p", { class: "hint", text: job.state === "done" ? settingsOf(job) : `${job.state} · ${settingsOf(job)}` }),
    job.error && job.state === "failed" ? el("p", { class: "error", text: job.error.message }) : null,
    ...notes,
    el("div", { class: "row" }, ...resultButtons(job, job.images[0]?.index ?? 0, app)));
}

/** The part of the page above the gallery. */
export class Queue {
  constructor(app) {
    this.app = app;
    this.items = new Map();
    this.own = new Set(); // jobs of this page
    this.said = new Map();
  }

  /** Takes a job that this page submitted. */
  add(job) {
    this.own.add(job.id);
    this.app.jobs.put(job);
    // On a phone the result is below the form.
    if (byId("featured").getBoundingClientRect().top > innerHeight * 0.8) byId("featured").scrollIntoView({ block: "start" });
  }

  /** The job in large: an own one that runs, any that runs or waits, or the last result. */
  get featured() {
    const { active, ended } = this.app.jobs;
    const running = active.filter(({ state }) => state === "running");
    return running.find(({ id }) => this.own.has(id)) ?? running[0] ?? active[0]
      ?? ended.find((job) => job.state === "done" || job.state === "failed" || job.images.length > 0) ?? null;
  }

  /** Shows the jobs as they are. */
  show() {
    const featured = this.featured;
    this.#feature(featured);
    const others = this.app.jobs.active.filter((job) => job.id !== featured?.id);
    byId("queue").hidden = others.length === 0;
    const waiting = others.filter(({ state }) => state === "queued").length;
    byId("queue-title").textContent = waiting > 0 ? `Queue · ${waiting} waiting` : "Also running";
    const kept = new Set(others.map(({ id }) => id));
    for (const id of this.items.keys()) if (!kept.has(id)) this.items.delete(id);
    const elements = others.map((job) => {
      const item = this.items.get(job.id) ?? new Running(job, this.app, false);
      this.items.set(job.id, item);
      item.update(job);
      return item.element;
    });
    const list = byId("queue-list");
    if (elements.length !== list.children.length || elements.some((each, at) => each !== list.children[at])) {
      list.replaceChildren(...elements);
    }
    this.#tell();
  }

  #feature(job) {
    const holder = byId("featured");
    // Another model takes images or none, so that a result has other buttons.
    const key = job && `${job.id} ${isActive(job) ? "active" : job.state} ${this.app.form.model.conditioning}`;
    if (key !== this.key) {
      this.key = key;
      const had = holder.contains(document.activeElement);
      this.running = job && isActive(job) ? new Running(job, this.app, true) : null;
      const empty = el("p", { class: "empty", text: "Images appear here. Describe one, and press Generate." });
      const next = this.running?.element ?? (job ? result(job, this.app) : empty);
      holder.replaceChildren(next);
      if (had) byId("stage").focus({ preventScroll: true });
      document.title = this.running ? "… ldm" : "ldm";
    }
    if (this.running && job) this.running.update(job);
  }

  // The start, the middle and the end of own jobs.
  #tell() {
    for (const id of this.own) {
      const job = this.app.jobs.byId.get(id);
      if (!job) continue;
      const half = job.progress.steps > 0 && job.progress.step >= job.progress.steps / 2;
      const now = job.state === "running" && half ? "half" : job.state;
      if (this.said.get(id) === now) continue;
      this.said.set(id, now);
      const count = job.images.length === 1 ? "the image is" : `${job.images.length} images are`;
      const texts = {
        running: "Sampling started", half: "Half of the steps are done", done: `Done; ${count} there`,
        canceled: "Canceled", failed: `Failed: ${job.error?.message ?? ""}`,
      };
      if (texts[now]) announce(texts[now]);
      if (!isActive(job)) this.own.delete(id);
    }
  }
}
