// Painting of rasters with a pointer or with keys.

import { button, el } from "./dom.js";
import { Raster } from "./raster.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A raster over a background, with its tools. `color(value)` is the [r, g, b, a] of a value, `ink()` the value that is
 * painted, `blank` that of the eraser; `tools` are further elements.
 */
export class Painter {
  constructor(holder, { label, color, ink, blank = 0, invert = false, flood = false, tools = [], changed = () => {} }) {
    Object.assign(this, { color, ink, blank, changed });
    this.raster = new Raster(1, 1, blank);
    this.back = el("canvas", { "aria-hidden": "true" });
    this.canvas = el("canvas", {
      tabindex: 0,
      role: "application",
      "aria-label": `${label}. Arrow keys move the brush, Space sets it down and lifts it`,
    });
    this.cursor = el("div", { class: "brush", hidden: true });
    this.size = el("input", { type: "range", min: 1, max: 60, value: 14 });
    this.tool = "paint";
    const choice = (name, text) =>
      button(text, () => this.#choose(name), { "data-tool": name, "aria-pressed": String(name === "paint") });
    this.choices = [choice("paint", "Brush"), choice("erase", "Eraser"), ...(flood ? [choice("flood", "Fill")] : [])];
    const act = (text, work) => button(text, () => this.#change(work));
    const undo = button("Undo", () => {
      if (this.raster.undo()) this.#done();
    });
    this.bar = el("div", { class: "tools" },
      ...tools,
      el("div", { class: "row tight" }, ...this.choices),
      el("label", { class: "brush-size" }, el("span", { text: "Size" }), this.size),
      el("div", { class: "row tight" }, undo,
        invert ? act("Invert", () => this.raster.invert()) : null,
        act("Clear", () => this.raster.fill(this.blank))));
    this.area = el("div", { class: "drawing painter" }, this.back, this.canvas, this.cursor);
    holder.append(this.area, this.bar);
    this.#listen();
  }

  /** Sets the size; what is painted is kept, resized. */
  resize(width, height) {
    if (this.raster.width === width && this.raster.height === height) return;
    this.raster = this.raster.resized(width, height);
    for (const canvas of [this.back, this.canvas]) Object.assign(canvas, { width, height });
    this.area.style.aspectRatio = `${width} / ${height}`;
    this.place = [width / 2, height / 2];
    this.draw();
  }

  /** Draws an image behind, so that it covers the area. */
  background(image) {
    const { width, height } = this.back;
    const context = this.back.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (!image) return;
    const scale = Math.max(width / image.width, height / image.height);
    const [wide, high] = [image.width * scale, image.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(image, (width - wide) / 2, (height - high) / 2, wide, high);
  }

  /** Removes what is painted. */
  clear() {
    this.raster = new Raster(this.raster.width, this.raster.height, this.blank);
    this.draw();
  }

  /** Draws all. */
  draw() {
    const { width, height, data } = this.raster;
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    const table = new Uint32Array(256);
    const bytes = new Uint8Array(table.buffer);
    for (let value = 0; value < 256; value += 1) bytes.set(this.color(value), 4 * value);
    for (let at = 0; at < data.length; at += 1) words[at] = table[data[at]];
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  #choose(name) {
    this.tool = name;
    for (const each of this.choices) each.setAttribute("aria-pressed", String(each.dataset.tool === name));
  }

  #change(work) {
    this.raster.remember();
    work();
    this.#done();
  }

  #done() {
    this.draw();
    this.changed();
  }

  get #value() {
    return this.tool === "erase" ? this.blank : this.ink();
  }

  // Half the brush, whose size is a share of 200 of the longer side.
  get #radius() {
    return Math.max(0.5, (this.size.value / 400) * Math.max(this.raster.width, this.raster.height));
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.raster;
    return [((event.clientX - box.left) / box.width) * width - 0.5, ((event.clientY - box.top) / box.height) * height - 0.5];
  }

  #stroke(to) {
    this.raster.line(this.last ?? to, to, this.#radius, this.#value);
    this.last = to;
    this.#wish();
  }

  #wish() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  #showCursor([x, y]) {
    const { width, height } = this.raster;
    this.cursor.hidden = false;
    Object.assign(this.cursor.style, {
      left: `${(100 * (x + 0.5)) / width}%`,
      top: `${(100 * (y + 0.5)) / height}%`,
      width: `${(200 * this.#radius) / width}%`,
    });
  }

  #start(at) {
    this.raster.remember();
    this.last = null;
    if (this.tool === "flood") this.raster.flood(at[0] + 0.5, at[1] + 0.5, this.#value);
    else this.#stroke(at);
    this.#wish();
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.#start(this.#at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      this.#showCursor(this.#at(event));
      if (!this.drawing || this.tool === "flood") return;
      for (const each of event.getCoalescedEvents?.() ?? [event]) this.#stroke(this.#at(each));
    });
    const end = () => {
      if (this.drawing) this.#done();
      this.drawing = false;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => (this.cursor.hidden = true));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      this.size.value = Number(this.size.value) - Math.sign(event.deltaY) * 2;
      this.#showCursor(this.#at(event));
    }, { passive: false });
    canvas.addEventListener("blur", () => {
      this.cursor.hidden = true;
      this.down = false;
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      event.preventDefault();
      if (this.raster.undo()) this.#done();
    } else if (event.key === " ") {
      event.preventDefault();
      this.down = !this.down && this.tool !== "flood";
      this.#start(this.place);
      this.changed();
    } else if (KEYS[event.key]) {
      event.preventDefault();
      const { width, height } = this.raster;
      const step = Math.max(1, this.#radius / 2);
      const [x, y] = KEYS[event.key];
      const clamp = (value, most) => Math.min(most - 1, Math.max(0, value));
      this.place = [clamp(this.place[0] + x * step, width), clamp(this.place[1] + y * step, height)];
      if (this.down) {
        this.#stroke(this.place);
        this.changed();
      }
    } else return;
    this.#showCursor(this.place);
  }
}
