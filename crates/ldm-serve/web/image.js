// The image that a request starts from, and the mask on it.

import { byId, imageFile, onDrop, toast } from "./dom.js";
import { Painter } from "./painter.js";
import { dataUrl, grayPng } from "./png.js";

const MASK = [222, 60, 90, 150];

/** The image of the form. `changed` is called when one comes or goes, and when a mask does. */
export class ImageInput {
  constructor(changed) {
    this.changed = changed;
    this.file = null;
    this.bitmap = null;
    this.masking = false;
    this.painter = new Painter(byId("image-view"), {
      label: "Mask: what is painted is sampled anew",
      color: (value) => (value ? MASK : [0, 0, 0, 0]),
      ink: () => 255,
      invert: true,
      changed,
    });
    byId("drop").addEventListener("click", () => byId("file").click());
    byId("image-other").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) this.set(file);
      event.target.value = "";
    });
    byId("image-remove").addEventListener("click", () => {
      this.clear();
      byId("drop").focus();
    });
    byId("image-mask").addEventListener("click", () => this.#toggleMask());
    onDrop(byId("drop").closest(".card"), (file) => this.set(file));
    document.addEventListener("paste", (event) => {
      const file = imageFile(event.clipboardData);
      if (file && !byId("drop").closest(".card").hidden) {
        event.preventDefault();
        this.set(file);
      }
    });
    this.#show();
  }

  /** Takes an image file. */
  async set(file) {
    try {
      this.bitmap = await createImageBitmap(file);
    } catch {
      toast(`${file.name ?? "The file"} is not an image that this browser can show.`, true);
      return;
    }
    this.file = file;
    this.#show();
    this.changed();
  }

  /** Takes an image of the server. */
  async setUrl(url, name) {
    const answer = await fetch(url);
    if (!answer.ok) return toast("The image is no longer there.", true);
    await this.set(new File([await answer.blob()], name, { type: "image/png" }));
    byId("image-view").scrollIntoView({ block: "nearest" });
  }

  /** Removes the image. */
  clear() {
    this.file = null;
    this.bitmap = null;
    this.masking = false;
    this.painter.clear();
    this.#show();
    this.changed();
  }

  /** The size of the images to make, and whether the model completes images (`always` a mask) or takes none (`never`). */
  fit(width, height, masks) {
    this.masks = masks;
    if (width > 0 && height > 0 && width * height <= 2 ** 24) {
      this.painter.resize(width, height);
      this.painter.background(this.bitmap);
    }
    this.#show();
  }

  /** True where a mask is painted. */
  get hasMask() {
    return this.file !== null && (this.masking || this.masks === "always") && this.masks !== "never";
  }

  /** The parts of a request. */
  async parts() {
    if (!this.file) return {};
    const parts = { image: await dataUrl(this.file) };
    const { width, height, data } = this.painter.raster;
    if (this.hasMask && !this.painter.raster.isOnly(0)) parts.mask = await dataUrl(await grayPng(width, height, data));
    return parts;
  }

  #toggleMask() {
    this.masking = !this.masking;
    this.#show();
    this.changed();
    if (this.masking) this.painter.canvas.focus();
  }

  #show() {
    const has = this.file !== null;
    const masks = has && this.hasMask;
    byId("drop").hidden = has;
    byId("image-view").hidden = !has;
    byId("image-actions").hidden = !has;
    byId("image-mask").hidden = this.masks !== "maybe";
    byId("image-mask").setAttribute("aria-pressed", String(masks));
    byId("image-mask").textContent = masks ? "Without a mask" : "Paint a mask";
    this.painter.canvas.hidden = !masks;
    this.painter.bar.hidden = !masks;
    this.painter.background(this.bitmap);
  }
}
