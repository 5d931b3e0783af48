// Training runs.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { byId, el, setOptions } from "./dom.js";

const POINTS = 600;
const COLORS = 8;
const PERIOD = 5000;

/** Losses and measures of quality come first, then what steers the training, then its speed. */
function rank(key) {
  if (/loss|fid|psnr|ssim|lpips|score|precision|recall/i.test(key)) return 0;
  return /^lr|rate$|grad|norm|kl|usage|perplexity/i.test(key) ? 1 : 2;
}

/** The page of training runs. It asks again while it is shown. */
export class Runs {
  constructor(smoothing) {
    this.smoothing = smoothing;
    this.runs = [];
    this.colors = new Map(); // of chosen runs
    this.series = new Map();
    byId("log-scale").addEventListener("change", () => this.#draw());
    smoothing.number.addEventListener("change", () => this.#draw());
    byId("run-choice").addEventListener("change", () => this.#detail());
  }

  /** Shows or hides it. */
  show(visible) {
    clearInterval(this.timer);
    if (!visible) return;
    this.refresh();
    this.timer = setInterval(() => document.hidden || this.refresh(), PERIOD);
  }

  /** Asks for the runs, and for the metrics of those that changed. */
  async refresh() {
    try {
      const before = this.runs;
      this.runs = await api.runs();
      if (this.colors.size === 0 && before.length === 0) this.runs.slice(0, 1).forEach(({ name }) => this.#choose(name, true));
      this.#list();
      const stale = this.runs.filter(({ name, updated }) => this.colors.has(name) && this.series.get(name)?.updated !== updated);
      if (stale.length === 0 && before.length > 0) return;
      await Promise.all(stale.map((run) => this.#load(run)));
      this.#draw();
      await this.#detail();
      this.problem = null;
    } catch (error) {
      this.problem = error.message;
      this.#list();
    }
  }

  async #load({ name, updated }) {
    this.series.set(name, { updated, series: await api.metrics(name, POINTS) });
  }

  #choose(name, chosen) {
    if (!chosen) {
      this.colors.delete(name);
      return;
    }
    const used = new Set(this.colors.values());
    const free = Array.from({ length: COLORS }, (_, color) => color).find((color) => !used.has(color));
    this.colors.set(name, free ?? this.colors.size % COLORS);
  }

  #list() {
    const holder = byId("run-list");
    // Only what changed, so that the focus stays.
    const key = JSON.stringify([this.runs.map(({ name, step, state }) => [name, step, state]), [...this.colors], this.problem]);
    if (key === this.key) return;
    this.key = key;
    const focused = document.activeElement?.value;
    const items = this.runs.map((run) => {
      const color = this.colors.get(run.name);
      const box = el("input", { type: "checkbox", value: run.name, checked: color !== undefined });
      box.addEventListener("change", async () => {
        this.#choose(run.name, box.checked);
        this.#list();
        try {
          if (box.checked) await this.#load(run);
        } catch (error) {
          this.problem = error.message;
          this.#list();
        }
        this.#draw();
        this.#detail();
      });
      const share = run.steps ? `${run.step} of ${run.steps}` : run.step;
      return el("label", { class: "run" }, box,
        el("span", { class: color === undefined ? "swatch" : `swatch color-${color}`, "aria-hidden": "true" }),
        el("span", { class: "grow" }, el("span", { class: "title", text: run.name }),
          el("span", { class: "hint", text: `Step ${share} · ${run.state}` })),
        run.state === "running" ? el("span", { class: "live", title: "Running", "aria-hidden": "true" }) : null);
    });
    const empty = this.runs.length === 0 && !this.problem ? [el("p", { class: "hint", text: "No runs yet." })] : [];
    const problem = this.problem ? [el("p", { class: "error", role: "alert", text: this.problem })] : [];
    holder.replaceChildren(...problem, ...items, ...empty);
    if (focused) [...holder.querySelectorAll("input")].find(({ value }) => value === focused)?.focus();
  }

  #draw() {
    const chosen = [...this.colors].filter(([name]) => this.series.has(name));
    const keys = [...new Set(chosen.flatMap(([name]) => Object.keys(this.series.get(name).series)))];
    keys.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
    const options = { log: byId("log-scale").checked, smoothing: Math.min(0.99, this.smoothing.value ?? 0) };
    const charts = keys.map((key) => {
      const lines = chosen.map(([name, color]) => ({ name, color, points: this.series.get(name).series[key] ?? [] }));
      return chart(key, lines, options);
    });
    const empty = el("p", { class: "empty card", text: this.runs.length === 0 ? "Metrics of training runs appear here." : "Choose a run to see its metrics." });
    byId("charts").replaceChildren(...(charts.length > 0 ? charts : [empty]));
  }

  // Samples and the config of one of the chosen runs.
  async #detail() {
    const names = [...this.colors.keys()];
    const choice = byId("run-choice");
    const wanted = names.includes(choice.value) ? choice.value : names[0];
    setOptions(choice, names);
    choice.hidden = names.length < 2;
    byId("run-detail").hidden = wanted === undefined;
    if (wanted === undefined) return;
    choice.value = wanted;
    const run = await api.findRun(wanted);
    byId("run-title").textContent = run.name;
    byId("config").textContent = run.config;
    this.#samples(run);
  }

  #samples({ name, samples }) {
    const holder = byId("samples");
    holder.hidden = samples.length === 0;
    if (samples.length === 0) return;
    const before = holder.querySelector("input");
    const same = this.sampled === name && before;
    // The newest, unless another was chosen.
    const chosen = same && before.value !== before.max ? Math.min(before.value, samples.length - 1) : samples.length - 1;
    if (same && Number(before.max) === samples.length - 1) return;
    this.sampled = name;
    const slider = el("input", { id: "sample-step", type: "range", min: 0, max: samples.length - 1, step: 1 });
    const label = el("label", { for: "sample-step" });
    const image = el("img", {});
    const show = () => {
      const { step, url } = samples[slider.value];
      label.textContent = `Samples at step ${step}`;
      slider.setAttribute("aria-valuetext", `step ${step}`);
      Object.assign(image, { src: url, alt: `Samples at step ${step}` });
    };
    slider.addEventListener("input", show);
    slider.value = chosen;
    show();
    holder.replaceChildren(label, slider, image);
  }
}
