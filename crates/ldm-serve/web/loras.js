// LoRAs with their weights.

import { button, byId, el, setOptions } from "./dom.js";

/** The LoRAs of the form. */
export class Loras {
  constructor(names, changed) {
    this.names = names;
    this.changed = changed;
    this.rows = el("div", { class: "stack" });
    byId("loras").append(el("p", { class: "label", text: "LoRAs" }), this.rows, button("Add a LoRA", () => this.#add()));
    byId("loras").hidden = names.length === 0;
  }

  /** Takes the LoRAs of a request; returns the names that the server does not have. */
  set(loras) {
    this.rows.replaceChildren();
    for (const { name, weight } of loras) if (this.names.includes(name)) this.#add(name, weight);
    return loras.map(({ name }) => name).filter((name) => !this.names.includes(name));
  }

  /** The LoRAs of a request. */
  get() {
    return [...this.rows.children].map((row) => ({
      name: row.querySelector("select").value,
      weight: Number(row.querySelector("input").value || 1),
    }));
  }

  #add(name = this.names[0], weight = 1) {
    const choice = el("select", { class: "grow", "aria-label": "LoRA" });
    setOptions(choice, this.names);
    choice.value = name;
    const remove = button("×", () => {
      row.remove();
      this.changed();
    }, { class: "icon", "aria-label": "Remove the LoRA" });
    const number = el("input", { type: "number", step: 0.05, value: weight, "aria-label": "Weight of the LoRA" });
    const row = el("div", { class: "row tight lora" }, choice, number, remove);
    this.rows.append(row);
    this.changed();
  }
}
