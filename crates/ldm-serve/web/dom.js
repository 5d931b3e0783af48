// Elements, messages and numbers. Strings of users and servers only ever become text.

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. Of its properties, `text` and `class` are what they say, functions are listeners, `true` and `false` set
 * and leave out an attribute; all others are attributes.
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that submits nothing. */
export function button(text, click, properties = {}) {
  return el("button", { type: "button", text, click, ...properties });
}

/** Replaces the options of a list by values, or pairs of a value and a text. */
export function setOptions(select, options) {
  select.replaceChildren(
    ...options.map((option) => {
      const [value, text] = Array.isArray(option) ? option : [option, option];
      return el("option", { value, text });
    }),
  );
}

/** Tells screen readers, and nobody else. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Shows a message for some seconds; `error` keeps it until it is closed. */
export function toast(text, error = false) {
  const note = el("div", { class: error ? "toast error" : "toast", role: error ? "alert" : "status" });
  note.append(el("span", { text }), button("×", () => note.remove(), { class: "quiet", "aria-label": "Close message" }));
  byId("toasts").append(note);
  if (!error) setTimeout(() => note.remove(), 8000);
}

/** Asks a question; resolves to true once it is answered by `action`. */
export function confirmed(question, action) {
  const dialog = byId("question");
  dialog.querySelector("p").textContent = question;
  byId("question-yes").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** A time span as text. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Calls a function once no more calls come for some milliseconds. */
export function debounce(milliseconds, call) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, milliseconds);
  };
}

/** The first image file of a drop or a paste. */
export function imageFile(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

/** Makes an element take dropped files. */
export function onDrop(element, take) {
  let depth = 0; // of nested elements that the pointer is in
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  element.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    element.classList.add("dropping");
  });
  element.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (depth === 0) element.classList.remove("dropping");
  });
  element.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  element.addEventListener("drop", (event) => {
    depth = 0;
    element.classList.remove("dropping");
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const file = imageFile(event.dataTransfer);
    if (file) take(file);
    else toast("Only image files can be dropped here.");
  });
}
