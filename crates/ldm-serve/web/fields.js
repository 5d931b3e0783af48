// Fields of the form: sliders with a number beside them, and errors below.

import { el } from "./dom.js";

const SLIDERS = {
  steps: { label: "Steps", min: 1, max: 150, step: 1 },
  guidance_scale: { label: "Guidance scale", min: 1, max: 20, step: 0.5 },
  strength: { label: "Strength: how much of the image changes", min: 0, max: 1, step: 0.05 },
  feather: { label: "Soft border of the mask in pixels", min: 0, max: 64, step: 1, initial: 0 },
  eta: { label: "Eta (noise of each step)", min: 0, max: 1, step: 0.05, placeholder: "Sampler's" },
  guidance_rescale: { label: "Guidance rescale", min: 0, max: 1, step: 0.05, initial: 0 },
  "hires.scale": { label: "Enlarge by", min: 1.25, max: 4, step: 0.25, initial: 2 },
  "hires.strength": { label: "Strength of the second pass", min: 0, max: 1, step: 0.05, initial: 0.7 },
  "variation.strength": { label: "Share of the other seed", min: 0, max: 1, step: 0.05, initial: 0.1 },
  token_merging: { label: "Token merging (faster, less exact)", min: 0, max: 0.75, step: 0.05, initial: 0 },
  smoothing: { label: "Smoothing", min: 0, max: 0.99, step: 0.01, initial: 0 },
};

/** A number, and a range to drag, of the same value. Empty is the default of the model or the sampler. */
export class Slider {
  constructor(holder) {
    const name = holder.dataset.slider;
    const { label, min, max, step, initial, placeholder } = SLIDERS[name];
    const id = name.replace(/[._]/g, "-");
    this.initial = initial ?? null;
    this.number = el("input", { id, type: "number", min: Math.min(min, 0), step: "any", inputmode: "decimal", placeholder });
    this.number.step = step;
    // The number is the field of keyboards and screen readers; the range is its handle for pointers.
    this.range = el("input", { type: "range", min, max, step, tabindex: -1, "aria-label": `${label}, as a slider` });
    holder.prepend(
      el("div", { class: "row between" }, el("label", { for: id, text: label }), this.number),
      this.range,
    );
    this.number.addEventListener("input", () => this.#paint());
    this.range.addEventListener("input", () => {
      this.number.value = this.range.value;
      this.#paint();
      this.number.dispatchEvent(new Event("change", { bubbles: true }));
    });
    this.value = null;
  }

  /** The value, or null where it is empty. */
  get value() {
    return this.number.value === "" ? null : Number(this.number.value);
  }

  set value(value) {
    this.number.value = value ?? this.initial ?? "";
    this.#paint();
  }

  /** The value that stands for no choice; a field that still has the one before takes it. */
  set fallback(value) {
    const untouched = this.value === null || this.value === this.initial;
    this.initial = value;
    if (untouched) this.value = value;
  }

  #paint() {
    this.range.value = this.number.value === "" ? this.range.min : this.number.value;
    const { min, max, value } = this.range;
    this.range.style.setProperty("--share", `${(100 * (value - min)) / (max - min)}%`);
  }
}

/** The sliders of the page by name. */
export function makeSliders() {
  const holders = [...document.querySelectorAll("[data-slider]")];
  return Object.fromEntries(holders.map((holder) => [holder.dataset.slider, new Slider(holder)]));
}

/** Prepares a field for errors; the part after its control. */
function errorOf(field) {
  let error = field.querySelector(":scope > .error");
  if (!error) {
    error = el("p", { class: "error", id: `error-${field.dataset.field.replace(/\W/g, "-")}` });
    field.append(error);
  }
  return error;
}

/** Removes all errors of a form. */
export function clearErrors(form) {
  for (const field of form.querySelectorAll("[data-field]")) {
    const error = field.querySelector(":scope > .error");
    if (!error) continue;
    error.remove();
    for (const control of field.querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
  }
  form.querySelector("#form-error").textContent = "";
}

/** Shows an error at its field, if there is one, and at the button. */
export function showError(form, { message, field: name }) {
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  form.querySelector("#form-error").textContent = sentence;
  const names = name ? [name, name.split(/[.[]/)[0]] : [];
  const known = names.map((each) => form.querySelector(`[data-field="${CSS.escape(each)}"]`)).find(Boolean);
  if (!known) return;
  for (let parent = known; parent; parent = parent.parentElement) if (parent.tagName === "DETAILS") parent.open = true;
  const error = errorOf(known);
  error.textContent = sentence;
  const control = known.querySelector("input:not([hidden]), textarea, select, button");
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-describedby", error.id);
  control?.focus();
}
