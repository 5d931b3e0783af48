// Weights of words in prompts, (word:1.1), which keys change as on AUTOMATIC1111's page.

const STEP = 0.1;
const ENDS = /[\s.,;:!?/\\^*{}=`~()[\]]/;
const NUMBER = /^:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)/;

const escaped = (text, at) => text[at - 1] === "\\" && text[at - 2] !== "\\";

/** The place of the bracket that encloses `at`, toward the start or the end; -1 without one. */
function bracket(text, at, by) {
  const [wanted, other] = by < 0 ? ["(", ")"] : [")", "("];
  let depth = 0;
  for (let place = by < 0 ? at - 1 : at; place >= 0 && place < text.length; place += by) {
    if (escaped(text, place)) continue;
    if (text[place] === other) depth += 1;
    else if (text[place] === wanted && depth-- === 0) return place;
  }
  return -1;
}

/** The part whose weight the cursor is in, or else its word. */
function partAt(text, at) {
  const [open, close] = [bracket(text, at, -1), bracket(text, at, 1)];
  if (open >= 0 && close >= 0) {
    const colon = text.lastIndexOf(":", close);
    if (colon > open && NUMBER.test(text.slice(colon, close + 1))) return [open + 1, colon];
  }
  let [start, end] = [at, at];
  while (start > 0 && !ENDS.test(text[start - 1])) start -= 1;
  while (end < text.length && !ENDS.test(text[end])) end += 1;
  return [start, end];
}

/**
 * Changes the weight of the part `start` to `end` of a text, or of the word at the cursor, by a step up or down. Returns what
 * to replace, `[from, to, by]`, and the new selection; null where there is nothing to weigh.
 */
export function weighed(text, start, end, up) {
  if (start === end) [start, end] = partAt(text, start);
  while (end > start && /\s/.test(text[end - 1])) end -= 1;
  while (start < end && /\s/.test(text[start])) start += 1;
  if (start === end) return null;
  const part = text.slice(start, end);
  const number = text[start - 1] === "(" && !escaped(text, start - 1) ? text.slice(end).match(NUMBER) : null;
  const weight = Math.round(((number ? Number(number[1]) : 1) + (up ? STEP : -STEP)) * 1e6) / 1e6;
  const [from, to] = number ? [start - 1, end + number[0].length] : [start, end];
  if (weight === 1) return { replace: [from, to, part], selection: [from, from + part.length] };
  const shown = Number.isInteger(weight) ? weight.toFixed(1) : String(weight);
  return { replace: [from, to, `(${part}:${shown})`], selection: [from + 1, from + 1 + part.length] };
}

/** Weighs the words selected in a field by Ctrl and an arrow up or down. True where the text has changed. */
export function weighByKey(event) {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return false;
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return false;
  event.preventDefault();
  const field = event.currentTarget;
  const change = weighed(field.value, field.selectionStart, field.selectionEnd, event.key === "ArrowUp");
  if (!change) return false;
  const [from, to, by] = change.replace;
  field.setSelectionRange(from, to);
  // Unlike an assignment, it can be undone by keys.
  if (!document.execCommand("insertText", false, by)) field.setRangeText(by, from, to);
  field.setSelectionRange(...change.selection);
  return true;
}
