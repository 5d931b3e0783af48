// The page: its parts, and what they share.

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { Jobs } from "./jobs.js";
import { Queue } from "./queue.js";
import { Runs } from "./runs.js";
import { Viewer } from "./viewer.js";

/** Asks until the server answers. */
async function untilAnswered(ask) {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 10000)) {
    try {
      const answer = await ask();
      byId("connection").hidden = true;
      return answer;
    } catch (error) {
      byId("connection").textContent = error.status === 0 ? "The server does not answer. Trying again…" : error.message;
      byId("connection").hidden = false;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function startPages(runs) {
  const show = () => {
    const training = location.hash === "#training" && runs !== null;
    byId("page-training").hidden = !training;
    byId("page-generate").hidden = training;
    for (const [name, current] of [["generate", !training], ["training", training]]) {
      const tab = byId(`tab-${name}`);
      if (current) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    runs?.show(training);
  };
  byId("tab-training").hidden = runs === null;
  window.addEventListener("hashchange", show);
  show();
}

function startKeys() {
  const keys = byId("keys");
  byId("keys-open").addEventListener("click", () => keys.showModal());
  byId("keys-close").addEventListener("click", () => keys.close());
  // On the page behind.
  keys.addEventListener("click", (event) => event.target === keys && keys.close());
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input:not([type=range], [type=checkbox]), textarea, select");
    if (event.key === "?" && !writes && !document.querySelector("dialog[open]")) keys.showModal();
  });
}

async function start() {
  const [server, models] = await untilAnswered(() => Promise.all([api.server(), api.models()]));
  const app = {};
  const show = () => {
    app.queue.show();
    const last = app.jobs.ended.find(({ images }) => images.length > 0);
    app.form.lastSeed = last?.request.seed;
    byId("last-seed").disabled = last === undefined;
    app.gallery.show(app.queue.featured);
  };
  const connected = (state) => {
    byId("connection").textContent = "Connection lost. Trying again…";
    byId("connection").hidden = state;
  };
  app.jobs = new Jobs(show, connected);
  app.form = new Form(server, models, (job) => app.queue.add(job));
  app.queue = new Queue(app);
  app.viewer = new Viewer(app);
  app.gallery = new Gallery(app);
  byId("model").addEventListener("change", show);
  startKeys();
  startPages(server.runs ? new Runs(app.form.sliders.smoothing) : null);
  app.jobs.start();
  document.documentElement.dataset.ready = "";
}

start().catch((error) => {
  document.body.prepend(el("p", { class: "notice error", role: "alert", text: `The page failed to start: ${error.message}` }));
  throw error;
});
