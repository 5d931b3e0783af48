// The label map of a model conditioned on one.

import { byId, el, setOptions } from "./dom.js";
import { Painter } from "./painter.js";
import { dataUrl, grayPng } from "./png.js";

/** The color of a class: hues far apart for classes that are near. */
function colorOf(value) {
  const hue = (value * 137.508) % 360;
  const light = [0.58, 0.42, 0.72][value % 3];
  const part = (shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (light - 0.6 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4), 255];
}

/** The painter of label maps. */
export class LabelMap {
  constructor() {
    this.choice = el("select", { id: "map-class" });
    this.swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    const paint = () => (this.swatch.style.background = `rgb(${colorOf(Number(this.choice.value)).slice(0, 3).join(" ")})`);
    this.choice.addEventListener("change", paint);
    this.paint = paint;
    const tools = [el("label", { class: "grow map-class" }, el("span", { text: "Class" }), this.swatch, this.choice)];
    this.painter = new Painter(byId("map"), {
      label: "Label map",
      color: colorOf,
      ink: () => Number(this.choice.value),
      flood: true,
      tools,
    });
  }

  /** The classes of a model, and the size of its images. */
  fit(model, width, height) {
    const count = model.classes ?? model.class_names.length;
    if (this.choice.options.length !== count || this.model !== model.name) {
      setOptions(this.choice, Array.from({ length: count }, (_, at) => [at, model.class_names[at] ?? `Class ${at}`]));
      this.choice.value = Math.min(1, count - 1);
      this.model = model.name;
      this.painter.clear();
      this.paint();
    }
    if (width > 0 && height > 0 && width * height <= 2 ** 24) this.painter.resize(width, height);
  }

  /** The parts of a request. */
  async parts() {
    const { width, height, data } = this.painter.raster;
    return { label_map: await dataUrl(await grayPng(width, height, data)) };
  }
}
