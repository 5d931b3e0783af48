// The form: from fields to requests and back.

import * as api from "./api.js";
import { Boxes } from "./boxes.js";
import { announce, byId, debounce, el, onDrop, setOptions, toast } from "./dom.js";
import { clearErrors, makeSliders, showError } from "./fields.js";
import { ImageInput } from "./image.js";
import { Loras } from "./loras.js";
import { LabelMap } from "./map.js";
import { SizeFields } from "./size.js";
import { weighByKey } from "./weights.js";

const STORE = "ldm.settings";
const TEXTS = { prompt: "prompt", negative_prompt: "negative", class: "class" };
const PLAIN = { seed: "seed", tile: "tile", deep_cache: "deep-cache", prompt_syntax: "syntax", sampler: "sampler", spacing: "spacing" };
const SHARES = ["eta", "guidance_rescale", "token_merging", "strength", "feather", "steps", "guidance_scale"];
const STARTS = ["none", "class", "text", "layout"];
const COMPLETES = ["inpainting", "text_inpainting"];

/** The form of a server and its models. `submitted` takes each accepted job. */
export class Form {
  constructor(server, models, submitted) {
    Object.assign(this, { server, models, submitted });
    this.form = byId("form");
    this.sliders = makeSliders();
    this.save = debounce(300, () => this.#store());
    this.boxes = new Boxes();
    this.map = new LabelMap();
    this.size = new SizeFields(() => this.#fit());
    this.image = new ImageInput(() => this.#show());
    this.loras = new Loras(server.loras, this.save);
    setOptions(byId("model"), models.map(({ name }) => name));
    setOptions(byId("spacing"), [["", "Sampler's own"], ...server.spacings]);
    byId("n").max = server.limits.images;
    this.#listen();
    this.#restore();
  }

  /** The chosen model. */
  get model() {
    return this.models.find(({ name }) => name === byId("model").value) ?? this.models[0];
  }

  /** Fills the fields by a request; what it leaves out becomes the model's default. Returns what is not followed. */
  fill(request) {
    const ignored = [];
    if (request.model) {
      if (this.models.some(({ name }) => name === request.model)) byId("model").value = request.model;
      else ignored.push(`model ${request.model}`);
    }
    for (const [key, id] of Object.entries({ ...TEXTS, ...PLAIN })) byId(id).value = request[key] ?? "";
    this.#useModel();
    if (request.sampler) byId("sampler").value = request.sampler;
    for (const name of SHARES) this.sliders[name].value = request[name] ?? null;
    byId("n").value = request.n ?? 1;
    byId("clip-skip").value = request.clip_skip ?? "";
    this.size.set(request.width ?? this.model.width, request.height ?? this.model.height);
    byId("hires").checked = Boolean(request.hires);
    this.sliders["hires.scale"].value = request.hires?.scale ?? null;
    this.sliders["hires.strength"].value = request.hires?.strength ?? null;
    byId("hires-steps").value = request.hires?.steps ?? "";
    byId("variation").checked = Boolean(request.variation);
    byId("variation-seed").value = request.variation?.seed ?? "";
    this.sliders["variation.strength"].value = request.variation?.strength ?? null;
    this.boxes.set(request.layout ?? []);
    ignored.push(...this.loras.set(request.loras ?? []).map((name) => `LoRA ${name}`));
    const [low, high] = request.guidance_interval ?? [];
    byId("interval-low").value = low ?? "";
    byId("interval-high").value = high ?? "";
    this.#show();
    this.save();
    return ignored;
  }

  /** The request of the fields, without files. */
  request() {
    const conditioning = this.model.conditioning;
    const shown = (id) => !byId(id).closest("[hidden]");
    const request = { model: this.model.name };
    for (const [key, id] of Object.entries({ ...TEXTS, ...PLAIN })) {
      const value = key.endsWith("prompt") ? byId(id).value : byId(id).value.trim();
      if (value && shown(id)) request[key] = value;
    }
    for (const name of SHARES) {
      const { number, value } = this.sliders[name];
      if (value !== null && !number.closest("[hidden]")) request[name] = value;
    }
    request.n = Number(byId("n").value || 1);
    if (shown("clip-skip") && byId("clip-skip").value) request.clip_skip = Number(byId("clip-skip").value);
    if (shown("width")) Object.assign(request, this.size.get());
    if (shown("hires") && byId("hires").checked) {
      const steps = byId("hires-steps").value;
      request.hires = {
        scale: this.sliders["hires.scale"].value ?? 2,
        strength: this.sliders["hires.strength"].value ?? 0.7,
        ...(steps ? { steps: Number(steps) } : {}),
      };
    }
    if (shown("variation") && byId("variation").checked) {
      const strength = this.sliders["variation.strength"].value ?? 0;
      request.variation = { seed: byId("variation-seed").value.trim() || "0", strength };
    }
    if (conditioning === "layout") request.layout = this.boxes.get();
    const loras = this.loras.get();
    if (loras.length > 0) request.loras = loras;
    const interval = ["interval-low", "interval-high"].map((id) => byId(id).value.trim());
    if (shown("interval-low") && interval.some(Boolean)) {
      request.guidance_interval = interval.map((bound) => (bound === "" ? null : Number(bound)));
    }
    return request;
  }

  /** Submits the request. */
  async submit() {
    const generate = byId("generate");
    if (generate.disabled) return;
    clearErrors(this.form);
    const request = this.request();
    for (const seed of [request.seed, request.variation?.seed]) {
      if (seed !== undefined && !/^\d{1,20}$/.test(seed)) {
        const field = seed === request.seed ? "seed" : "variation.seed";
        return showError(this.form, { message: `${field}: expected a whole number, or nothing for a random one`, field });
      }
    }
    generate.disabled = true;
    try {
      const files = this.model.conditioning === "label_map" ? this.map.parts() : this.image.parts();
      const usesImage = !byId("drop").closest(".card").hidden || this.model.conditioning === "label_map";
      const job = await api.submit({ ...request, ...(usesImage ? await files : {}) });
      announce(job.position > 1 ? `Accepted; place ${job.position} in the queue` : "Accepted");
      this.submitted(job);
    } catch (error) {
      showError(this.form, error);
    } finally {
      generate.disabled = false;
    }
  }

  /** Takes the settings of a PNG. */
  async take(file) {
    const note = byId("taken");
    note.hidden = false;
    note.classList.remove("error");
    try {
      const { request, model, ignored } = await api.parameters(file);
      const unknown = this.fill({ ...request, model: model ?? undefined });
      const left = [...ignored, ...unknown];
      note.textContent = `Took the settings of ${file.name}.` + (left.length > 0 ? ` Not followed: ${left.join("; ")}.` : "");
    } catch (error) {
      note.classList.add("error");
      note.textContent = error.status === 0 || error.status >= 500 ? error.message
        : `${file.name} has no settings in it: ${error.message}. To start from it, drop it on Image.`;
    }
  }

  #listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    document.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        this.submit();
      }
    });
    this.form.addEventListener("change", () => {
      this.#show();
      this.save();
    });
    this.form.addEventListener("input", this.save);
    byId("model").addEventListener("change", () => this.#useModel());
    byId("dice").addEventListener("click", () => this.#seed(""));
    byId("last-seed").addEventListener("click", () => this.lastSeed && this.#seed(this.lastSeed));
    byId("reset").addEventListener("click", () => {
      const { prompt, negative_prompt } = this.request();
      this.fill({ model: this.model.name, prompt, negative_prompt });
    });
    byId("take").addEventListener("click", () => byId("take-file").click());
    byId("take-file").addEventListener("change", (event) => {
      if (event.target.files[0]) this.take(event.target.files[0]);
      event.target.value = "";
    });
    onDrop(byId("prompts"), (file) => this.take(file));
    for (const id of ["prompt", "negative"]) {
      byId(id).addEventListener("keydown", (event) => {
        if (!this.model.clip || !weighByKey(event) || byId("syntax").value === "weights") return;
        byId("syntax").value = "weights";
        this.save();
        toast("The prompt syntax is now “Weights”.");
      });
    }
  }

  #seed(value) {
    byId("seed").value = value;
    this.save();
  }

  // Defaults of the model, where fields still have those of the model before.
  #useModel() {
    const model = this.model;
    const before = this.current ?? model;
    for (const name of ["steps", "guidance_scale"]) this.sliders[name].fallback = model[name];
    this.sliders.steps.number.max = this.server.limits.steps;
    setOptions(byId("sampler"), this.server.samplers.map((name) => [name, name === model.sampler ? `${name} (default)` : name]));
    byId("sampler").value = model.sampler;
    this.size.use(model, this.server.limits, before);
    byId("classes").replaceChildren(...model.class_names.slice(0, 2000).map((value) => el("option", { value })));
    const millions = model.parameters / 1e6;
    const size = millions >= 1000 ? `${(millions / 1000).toFixed(1)} billion` : `${millions.toFixed(1)} million`;
    byId("model-note").textContent = `${size} parameters, ${model.dtype}; ${model.width} × ${model.height} by default`;
    this.current = model;
    this.#show();
  }

  // Shows the fields that the model, its image and its mask have a use for.
  #show() {
    const { conditioning, clip } = this.model;
    const has = { image: this.image.file !== null && STARTS.includes(conditioning), mask: this.image.hasMask };
    for (const part of this.form.querySelectorAll("[data-for], [data-needs], [data-unless], [data-when], [data-clip]")) {
      const { for: kinds, needs, unless, when } = part.dataset;
      part.hidden = (kinds !== undefined && !kinds.split(/\s+/).includes(conditioning))
        || (needs !== undefined && !has[needs])
        || (unless !== undefined && has[unless])
        || (when !== undefined && !byId(when).checked)
        || ("clip" in part.dataset && !clip);
    }
    this.sliders.strength.fallback = has.mask ? 1 : 0.75;
    this.#fit();
  }

  #fit() {
    const { width, height } = this.size.get();
    const { conditioning } = this.model;
    const masks = COMPLETES.includes(conditioning) ? "always" : STARTS.includes(conditioning) ? "maybe" : "never";
    const bitmap = this.image.bitmap;
    if (conditioning === "low_resolution" && bitmap) this.image.fit(bitmap.width, bitmap.height, masks);
    else this.image.fit(width, height, masks);
    this.boxes.fit(width, height);
    if (conditioning === "label_map") this.map.fit(this.model, width, height);
  }

  #store() {
    try {
      localStorage.setItem(STORE, JSON.stringify(this.request()));
    } catch {
      // Without storage, settings last as long as the page.
    }
  }

  #restore() {
    let stored = {};
    try {
      stored = JSON.parse(localStorage.getItem(STORE)) ?? {};
    } catch {
      // As above.
    }
    const known = this.models.some(({ name }) => name === stored.model);
    this.fill({ ...stored, model: known ? stored.model : this.server.default_model });
    byId("advanced").open = ["eta", "guidance_interval", "hires", "variation", "tile", "loras", "clip_skip", "deep_cache"].some((key) => stored[key]);
    byId("settings").open = !matchMedia("(max-width: 60rem)").matches;
  }
}
