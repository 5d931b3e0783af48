// An image in large.

import { downloadUrl, imageUrl } from "./api.js";
import { altOf, resultButtons } from "./actions.js";
import { byId, el } from "./dom.js";

/** The large view, through which arrow keys go from image to image. */
export class Viewer {
  constructor(app) {
    this.app = app;
    this.dialog = byId("viewer");
    byId("viewer-close").addEventListener("click", () => this.dialog.close());
    byId("viewer-back").addEventListener("click", () => this.#go(-1));
    byId("viewer-next").addEventListener("click", () => this.#go(1));
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#go(step);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  /** Opens an image of a job. */
  open(job, index) {
    this.at = { id: job.id, index };
    this.#show();
    if (!this.dialog.open) this.dialog.showModal();
    byId("viewer-close").focus();
  }

  get #all() {
    return this.app.jobs.ended.flatMap((job) => job.images.map((image) => ({ job, image })));
  }

  #place(all) {
    return all.findIndex(({ job, image }) => job.id === this.at.id && image.index === this.at.index);
  }

  #go(step) {
    const all = this.#all;
    const next = all[this.#place(all) + step];
    if (!next) return;
    this.at = { id: next.job.id, index: next.image.index };
    this.#show();
  }

  #show() {
    const all = this.#all;
    const place = this.#place(all);
    const found = all[place];
    if (!found) return this.dialog.close();
    const { job, image } = found;
    const picture = byId("viewer-img");
    Object.assign(picture, { src: imageUrl(job.id, image.index), alt: altOf(job, image.index), width: image.width, height: image.height });
    picture.style.setProperty("--shape", image.width / image.height);
    byId("viewer-back").disabled = place === 0;
    byId("viewer-next").disabled = place === all.length - 1;
    byId("viewer-place").textContent = `Image ${place + 1} of ${all.length}`;
    byId("viewer-text").textContent = image.parameters;
    const forms = ["jpeg", "webp"].map((format) =>
      el("a", { class: "button", href: downloadUrl(job.id, image.index, format), download: "", text: format.toUpperCase() }));
    const closed = (removed = false) => (removed && this.#all.length > 0 ? this.#afterRemoval(place) : this.dialog.close());
    const buttons = resultButtons(job, image.index, this.app, { closed });
    byId("viewer-actions").replaceChildren(...buttons.slice(0, -1), ...forms, ...buttons.slice(-1));
  }

  #afterRemoval(place) {
    const { job, image } = this.#all[Math.min(place, this.#all.length - 1)];
    this.at = { id: job.id, index: image.index };
    this.#show();
  }
}
