// Line charts.

import { el } from "./dom.js";

const [WIDTH, HEIGHT] = [420, 220];
const MARGIN = { top: 12, right: 14, bottom: 28, left: 52 };

function svg(tag, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

/** A number in few characters. */
export function short(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  if (size >= 1e4) return `${Number((value / 1000).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) ticks.push(factor * 10 ** power);
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  const powers = inside.filter((tick) => Number.isInteger(Number(Math.log10(tick).toFixed(9))));
  if (inside.length <= 6) return inside.length >= 2 ? inside : linearTicks(low, high, 4);
  return powers.length >= 2 ? powers : inside;
}

/** Values smoothed by a moving average with a decay. */
function smooth(points, decay) {
  if (decay <= 0) return points;
  let [sum, weight] = [0, 0];
  return points.map(([step, value]) => {
    sum = decay * sum + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return [step, sum / weight];
  });
}

/** The point of a line that is nearest to a step. */
function nearest(points, step) {
  return points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
}

/** A chart of lines, each `{name, color, points}` with a number of a color. */
export function chart(title, lines, { log = false, smoothing = 0 } = {}) {
  const usable = lines
    .map((line) => {
      const points = line.points.filter(([, value]) => Number.isFinite(value) && (!log || value > 0));
      return { ...line, raw: points, points: smooth(points, smoothing) };
    })
    .filter(({ points }) => points.length > 0);
  const figure = el("figure", { class: "card chart" }, el("figcaption", { text: title }));
  if (usable.length === 0) {
    figure.append(el("p", { class: "hint", text: log ? "No values above 0." : "No values yet." }));
    return figure;
  }
  const all = usable.flatMap(({ raw }) => raw);
  const steps = all.map(([step]) => step);
  const values = all.map(([, value]) => value);
  const range = (list) => list.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  let [first, last] = range(steps);
  if (first === last) last = first + 1;
  let [low, high] = range(values);
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - Math.abs(low) / 2 - 1e-9, high + Math.abs(high) / 2 + 1e-9];
  const scale = log ? Math.log10 : (value) => value;
  const pad = log ? 0 : (high - low) * 0.04;
  const [bottom, top] = [scale(log ? low : low - pad), scale(log ? high : high + pad)];
  const x = (step) => MARGIN.left + ((step - first) / (last - first)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - ((scale(value) - bottom) / (top - bottom)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const summary = usable.map(({ name, points }) => `${name}: ${short(points.at(-1)[1])} at step ${points.at(-1)[0]}`);
  const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${summary.join("; ")}` });
  for (const tick of log ? logTicks(low, high) : linearTicks(low, high, 4)) {
    image.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)),
    );
  }
  for (const tick of linearTicks(first, last, 5).filter(Number.isInteger)) {
    image.append(svg("text", { class: "tick", x: x(tick), y: HEIGHT - 8, "text-anchor": "middle" }, short(tick)));
  }
  const path = (points) => points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  for (const { color, points, raw } of usable) {
    if (smoothing > 0) image.append(svg("polyline", { class: `line faint color-${color}`, points: path(raw) }));
    image.append(points.length > 1
      ? svg("polyline", { class: `line color-${color}`, points: path(points) })
      : svg("circle", { class: `dot color-${color}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
  }
  figure.append(image, readings(image, usable, { x, y, first, last }));
  return figure;
}

/** The values at the pointer. */
function readings(image, lines, { x, y, first, last }) {
  const cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  const dots = lines.map(({ color }) => svg("circle", { class: `dot color-${color}`, r: 3.5, visibility: "hidden" }));
  image.append(cursor, ...dots);
  const text = el("p", { class: "readings" });
  const show = (step) => {
    const at = lines.map(({ points }) => nearest(points, step));
    text.replaceChildren(el("span", { text: `Step ${at[0][0]}` }), ...lines.map(({ color }, index) =>
      el("span", { class: `reading color-${color}`, text: short(at[index][1]) })));
    return at;
  };
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const inside = ((event.clientX - box.left) / box.width) * WIDTH;
    const share = (inside - MARGIN.left) / (WIDTH - MARGIN.left - MARGIN.right);
    const at = show(first + Math.min(1, Math.max(0, share)) * (last - first));
    for (const [name, value] of [["x1", x(at[0][0])], ["x2", x(at[0][0])], ["visibility", "visible"]]) cursor.setAttribute(name, value);
    dots.forEach((dot, index) => {
      const [step, value] = at[index];
      for (const [name, each] of [["cx", x(step)], ["cy", y(value)], ["visibility", "visible"]]) dot.setAttribute(name, each);
    });
  });
  image.addEventListener("pointerleave", () => {
    for (const each of [cursor, ...dots]) each.setAttribute("visibility", "hidden");
    show(last);
  });
  show(last);
  return text;
}
