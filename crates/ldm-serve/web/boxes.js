// Labeled boxes of a layout.

import { byId, button, el } from "./dom.js";

const LEAST = 0.02;
const round = (value) => Math.round(value * 1000) / 1000;
const within = (value, low, high) => Math.min(high, Math.max(low, value));

/** The boxes of the form. */
export class Boxes {
  constructor() {
    this.area = byId("boxes");
    this.list = byId("box-list");
    this.boxes = [];
    byId("box-add").addEventListener("click", () => {
      const box = this.#add([0.25, 0.25, 0.5, 0.5]);
      box.element.focus();
    });
    this.area.addEventListener("pointerdown", (event) => this.#draw(event));
  }

  /** The shape of the images. */
  fit(width, height) {
    if (width > 0 && height > 0) this.area.style.aspectRatio = `${width} / ${height}`;
  }

  /** Takes the boxes of a request. */
  set(layout) {
    for (const box of this.boxes) this.#detach(box);
    this.boxes = [];
    for (const { label, box } of layout) this.#add(box, label);
  }

  /** The boxes of a request. */
  get() {
    return this.boxes.map(({ rect, input }) => ({ label: input.value.trim(), box: rect.map(round) }));
  }

  #add(rect, label = byId("box-label").value.trim()) {
    const number = this.boxes.length;
    const name = el("span", { text: label });
    const handle = el("span", { class: "handle", "aria-hidden": "true" });
    const element = el("div", { class: "box", tabindex: 0, role: "button" }, name, handle);
    element.dataset.color = number % 6;
    const input = el("input", { list: "classes", value: label, "aria-label": "Label of the box", autocomplete: "off" });
    const box = { rect: [...rect], element, input };
    const show = () => {
      name.textContent = input.value || "?";
      element.setAttribute("aria-label", `Box ${input.value || "without a label"}`);
    };
    input.addEventListener("input", show);
    show();
    box.item = el("li", { class: "row tight" }, input,
      button("×", () => this.#remove(box), { class: "icon", "aria-label": "Remove the box" }));
    element.addEventListener("pointerdown", (event) => this.#drag(event, box, event.target === handle));
    element.addEventListener("keydown", (event) => this.#key(event, box));
    this.boxes.push(box);
    this.area.append(element);
    this.list.append(box.item);
    this.#place(box);
    return box;
  }

  #detach(box) {
    box.element.remove();
    box.item.remove();
  }

  #remove(box) {
    this.#detach(box);
    this.boxes = this.boxes.filter((other) => other !== box);
    (this.boxes.at(-1)?.element ?? byId("box-add")).focus();
  }

  #place({ rect: [x, y, width, height], element }) {
    Object.assign(element.style, {
      left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%`,
    });
  }

  #move(box, [x, y, width, height]) {
    const wide = within(width, LEAST, 1);
    const high = within(height, LEAST, 1);
    box.rect = [within(x, 0, 1 - wide), within(y, 0, 1 - high), wide, high];
    this.#place(box);
  }

  #at(event) {
    const area = this.area.getBoundingClientRect();
    return [within((event.clientX - area.left) / area.width, 0, 1), within((event.clientY - area.top) / area.height, 0, 1)];
  }

  // Calls `move` with the place of the pointer until it is up.
  #follow(event, element, move, end = () => {}) {
    event.preventDefault();
    event.stopPropagation();
    element.setPointerCapture(event.pointerId);
    const moved = (each) => move(this.#at(each));
    const up = () => {
      element.removeEventListener("pointermove", moved);
      end();
    };
    element.addEventListener("pointermove", moved);
    element.addEventListener("pointerup", up, { once: true });
    element.addEventListener("pointercancel", up, { once: true });
  }

  #draw(event) {
    if (event.button !== 0) return;
    const [x, y] = this.#at(event);
    const box = this.#add([x, y, 0, 0]);
    const move = ([atX, atY]) => {
      box.rect = [Math.min(x, atX), Math.min(y, atY), Math.abs(atX - x), Math.abs(atY - y)];
      this.#place(box);
    };
    this.#follow(event, this.area, move, () => {
      // A click draws nothing.
      if (box.rect[2] < LEAST || box.rect[3] < LEAST) return this.#remove(box);
      (box.input.value ? box.element : box.input).focus();
    });
  }

  #drag(event, box, resizes) {
    if (event.button !== 0) return;
    box.element.focus();
    const [x, y] = this.#at(event);
    const [left, top, width, height] = box.rect;
    this.#follow(event, box.element, ([atX, atY]) => {
      const [dx, dy] = [atX - x, atY - y];
      if (resizes) {
        this.#move(box, [left, top, Math.min(width + dx, 1 - left), Math.min(height + dy, 1 - top)]);
      } else this.#move(box, [left + dx, top + dy, width, height]);
    });
  }

  #key(event, box) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") this.#remove(box);
    else if (step) {
      const [x, y, width, height] = box.rect;
      const [dx, dy] = step.map((each) => each * 0.02);
      if (event.shiftKey) this.#move(box, [x, y, Math.min(width + dx, 1 - x), Math.min(height + dy, 1 - y)]);
      else this.#move(box, [x + dx, y + dy, width, height]);
    } else return;
    event.preventDefault();
  }
}
