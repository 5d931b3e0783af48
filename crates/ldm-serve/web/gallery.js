// Results.

import { imageUrl } from "./api.js";
import { altOf, resultButtons, settingsOf, titleOf } from "./actions.js";
import { button, byId, el } from "./dom.js";

function card(job, app) {
  const images = job.images.map((image) => {
    const open = button("", () => app.viewer.open(job, image.index), { class: "open", "aria-label": `Show large: ${altOf(job, image.index)}` });
    open.append(el("img", { src: imageUrl(job.id, image.index), alt: "", loading: "lazy", width: image.width, height: image.height }));
    return open;
  });
  const grid = el("div", { class: "images" }, ...images);
  grid.style.setProperty("--columns", Math.min(4, Math.ceil(Math.sqrt(images.length))));
  const state = job.state === "done" ? null : el("span", { class: `badge ${job.state}`, text: job.state });
  const more = el("details", { class: "menu" },
    el("summary", { "aria-label": `Actions for ${titleOf(job)}`, text: "⋯" }),
    el("div", { class: "menu-items" }, ...resultButtons(job, job.images[0]?.index ?? 0, app)));
  more.addEventListener("click", (event) => {
    if (event.target.closest(".menu-items")) more.open = false;
  });
  return el("article", { class: "card result" },
    images.length > 0 ? grid : null,
    el("div", { class: "row between top" },
      el("div", { class: "grow" },
        el("p", { class: "title", text: titleOf(job), title: titleOf(job) }),
        el("p", { class: "hint" }, ...(state ? [state, " "] : []), settingsOf(job)),
        job.error && job.state === "failed" ? el("p", { class: "error", text: job.error.message }) : null),
      more));
}

/** The list of results. */
export class Gallery {
  constructor(app) {
    this.app = app;
    this.cards = new Map();
    byId("more").addEventListener("click", () => app.jobs.showOlder());
    document.addEventListener("click", (event) => this.#closeMenus(event.target));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      const menu = document.querySelector(".menu[open]");
      if (!menu) return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  }

  /** Shows the results but the one in large. */
  show(featured) {
    const { jobs, form } = this.app;
    const results = jobs.ended.filter((job) => job.id !== featured?.id);
    const kind = form.model.conditioning;
    const next = new Map(results.map((job) => {
      const known = this.cards.get(job.id);
      return [job.id, known?.kind === kind ? known : { kind, element: card(job, this.app) }];
    }));
    const elements = [...next.values()].map(({ element }) => element);
    const holder = byId("gallery");
    if (elements.length !== holder.children.length || elements.some((each, at) => each !== holder.children[at])) {
      holder.replaceChildren(...elements);
    }
    this.cards = next;
    byId("results").hidden = results.length === 0;
    byId("more").hidden = !jobs.older;
  }

  #closeMenus(target) {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
  }
}
