// Width and height.

import { byId, button } from "./dom.js";

const SHAPES = [[1, 1], [4, 3], [3, 4], [3, 2], [2, 3], [16, 9], [9, 16]];

/** The size of the form. */
export class SizeFields {
  constructor(changed) {
    this.width = byId("width");
    this.height = byId("height");
    this.changed = changed;
    byId("swap").addEventListener("click", () => this.#choose(this.height.value, this.width.value));
    for (const input of [this.width, this.height]) input.addEventListener("input", () => this.#mark());
  }

  /** The presets of a model: its area in several shapes. */
  use(model, limits, before) {
    const { multiple } = model;
    const untouched = !this.width.value || (Number(this.width.value) === before.width && Number(this.height.value) === before.height);
    for (const input of [this.width, this.height]) Object.assign(input, { min: multiple, step: multiple });
    if (untouched) this.set(model.width, model.height);
    const area = model.width * model.height;
    const side = (value) => Math.max(multiple, Math.round(value / multiple) * multiple);
    const sizes = new Map();
    for (const [wide, high] of SHAPES) {
      const scale = Math.sqrt(area / (wide * high));
      const [width, height] = [side(wide * scale), side(high * scale)];
      if (width * height <= limits.pixels) sizes.set(`${width}×${height}`, [width, height]);
    }
    const presets = [...sizes].map(([text, [width, height]]) =>
      button(text, () => this.#choose(width, height), { "data-size": `${width}x${height}` }));
    byId("presets").replaceChildren(...presets);
    this.#mark();
  }

  /** Sets it. */
  set(width, height) {
    this.width.value = width;
    this.height.value = height;
    this.#mark();
  }

  /** The parts of a request. */
  get() {
    return { width: Number(this.width.value), height: Number(this.height.value) };
  }

  #choose(width, height) {
    this.set(width, height);
    this.width.dispatchEvent(new Event("change", { bubbles: true }));
    this.changed();
  }

  #mark() {
    const size = `${this.width.value}x${this.height.value}`;
    for (const preset of byId("presets").children) {
      preset.setAttribute("aria-pressed", String(preset.dataset.size === size));
    }
  }
}
