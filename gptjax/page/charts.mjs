// Pictures: bars of likely tokens, matrices, vectors, and curves.

import { el, number, percent, svg, visible } from "./dom.mjs";

/** Red, green and blue of a custom CSS property, which is written as `r g b`. */
function color(name) {
  return getComputedStyle(document.documentElement)
    .getPropertyValue(name)
    .trim()
    .split(" ")
    .map(Number);
}

/** Calls `paint` now and whenever the system changes between light and dark. */
const painters = new Set();
export function painted(canvas, paint) {
  paint();
  canvas.paint = paint;
  painters.add(new WeakRef(canvas));
  return canvas;
}
if (typeof matchMedia === "function") {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const reference of painters) {
      const canvas = reference.deref();
      if (canvas?.isConnected) canvas.paint();
      else if (!canvas) painters.delete(reference);
    }
  });
}

/** The likeliest next tokens as bars; `taken` is the actual id, `before` the old probabilities. */
export function bars(best, tokenizer, { taken = null, before = null } = {}) {
  const list = el("ol", { class: "bars" });
  for (const { id, probability } of best) {
    const bar = el("span", { class: "bar" });
    bar.style.width = `${100 * probability}%`;
    const track = el("span", { class: "track" }, bar);
    const old = before?.find((other) => other.id === id);
    if (before) {
      const ghost = el("span", { class: "ghost" });
      ghost.style.left = `${100 * (old?.probability ?? 0)}%`;
      track.append(ghost);
    }
    list.append(
      el(
        "li",
        { class: id === taken ? "taken" : null },
        el("span", { class: "piece", text: visible(tokenizer.piece(id)) }),
        track,
        el("span", { class: "value", text: percent(probability) }),
      ),
    );
  }
  return list;
}

/** A matrix of numbers from 0 to 1 as a picture with one pixel per number; CSS scales it. */
export function matrix(values, rows, columns, label) {
  const canvas = el("canvas", { width: columns, height: rows, class: "matrix", role: "img" });
  canvas.setAttribute("aria-label", label);
  return painted(canvas, () => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const [r, g, b] = color("--accent-rgb");
    for (let i = 0; i < values.length; i++) {
      // The square root makes small weights visible.
      image.data.set([r, g, b, 255 * Math.sqrt(Math.min(1, values[i]))], 4 * i);
    }
    context.putImageData(image, 0, 0);
  });
}

/** A vector as a strip of cells: one color above 0, the other below. */
export function strip(values, label) {
  const canvas = el("canvas", { width: values.length, height: 1, class: "strip", role: "img" });
  canvas.setAttribute("aria-label", `${label}: ${values.length} numbers`);
  const most = values.reduce((a, x) => Math.max(a, Math.abs(x)), 1e-12);
  return painted(canvas, () => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(values.length, 1);
    const [positive, negative] = [color("--accent-rgb"), color("--warm-rgb")];
    values.forEach((value, i) => {
      const [r, g, b] = value >= 0 ? positive : negative;
      image.data.set([r, g, b, 255 * Math.sqrt(Math.abs(value) / most)], 4 * i);
    });
    context.putImageData(image, 0, 0);
  });
}

/** Round values for the ticks of an axis from `low` to `high`. */
function ticks(low, high, count = 5) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough);
  const first = Math.ceil(low / step) * step;
  return Array.from(
    { length: Math.floor((high - first) / step + 1e-9) + 1 },
    (_, i) => first + i * step,
  );
}

const short = (value) =>
  Math.abs(value) >= 1000
    ? `${Number((value / 1000).toPrecision(3))}k`
    : `${Number(value.toPrecision(3))}`;

/**
 * Draws curves over steps, and shows their values at the pointer.
 *
 * @param {{name: string, points: number[][], kind: string}[]} series kind is a class of the style.
 * @param {{label: string, levels?: {name: string, loss: number}[], width?: number}} options levels are
 *   dotted lines; width is in pixels, so that the labels have the size of the page's text.
 */
export function curves(series, { label, levels = [], width = 640, height = 260 }) {
  const [left, right, top, bottom] = [46, 12, 12, 28];
  const all = series.flatMap(({ points }) => points);
  const xs = all.map(([x]) => x);
  const ys = all.map(([, y]) => y);
  const [x0, x1] = [Math.min(0, ...xs), Math.max(...xs, 1)];
  const lowest = Math.min(...ys);
  const highest = Math.max(...ys);
  const margin = (highest - lowest || Math.abs(highest) || 1) * 0.06;
  const [y0, y1] = [lowest - margin, highest + margin];
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);

  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curves", role: "img" });
  picture.setAttribute("aria-label", label);
  for (const value of ticks(y0, y1)) {
    picture.append(
      svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end", text: short(value) }),
    );
  }
  for (const value of ticks(x0, x1)) {
    picture.append(
      svg("text", { x: x(value), y: height - 8, "text-anchor": "middle", text: short(value) }),
    );
  }
  const isFree = (loss, i) =>
    levels.slice(0, i).every((other) => Math.abs(y(other.loss) - y(loss)) > 14);
  const shown = levels.filter(({ loss }, i) => loss >= y0 && loss <= y1 && isFree(loss, i));
  for (const { loss } of shown) {
    picture.append(
      svg("line", { x1: left, x2: width - right, y1: y(loss), y2: y(loss), class: "level" }),
    );
  }
  for (const { points, kind } of series) {
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`);
    picture.append(svg("path", { d: path.join(""), class: kind }));
    if (points.length < 40) {
      for (const [a, b] of points)
        picture.append(svg("circle", { cx: x(a), cy: y(b), r: 2.5, class: kind }));
    }
  }
  for (const { name, loss } of shown) {
    picture.append(
      svg("text", {
        ...{ x: width - right - 4, y: y(loss) - 4, "text-anchor": "end", class: "level" },
        text: `${name}, ${loss.toFixed(2)}`,
      }),
    );
  }
  return hovering(picture, series, { x, x0, x1, width, left, right, top, bottom, height, label });
}

/** A figure whose caption shows the values at the pointer, which the arrow keys move too. */
function hovering(picture, series, place) {
  const line = svg("line", { y1: place.top, y2: place.height - place.bottom, class: "pointer" });
  picture.append(line);
  const said = el("figcaption", {});
  const nearest = (points, step) =>
    points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
  let at = place.x1;
  const show = (step) => {
    at = Math.min(place.x1, Math.max(place.x0, step));
    const [first] = nearest(series[0].points, at);
    line.setAttribute("x1", place.x(first));
    line.setAttribute("x2", place.x(first));
    said.replaceChildren(
      el("strong", { text: place.label }),
      el("span", { text: `step ${first.toLocaleString("en-US")}` }),
      ...series.map(({ name, points, kind }) =>
        el("span", { class: `key ${kind}`, text: `${name} ${short(nearest(points, first)[1])}` }),
      ),
    );
  };
  show(at);
  const figure = el("figure", { tabindex: 0, class: "chart" }, said, picture);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * place.width;
    const share = (px - place.left) / (place.width - place.left - place.right);
    show(place.x0 + share * (place.x1 - place.x0));
  });
  figure.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    show(at + (way * (place.x1 - place.x0)) / 50);
  });
  return figure;
}

/** Horizontal bars of numbers with names: [{name, value, text}]. */
export function quantities(items) {
  const most = Math.max(...items.map(({ value }) => value), 1e-12);
  return el(
    "ol",
    { class: "bars wide" },
    ...items.map(({ name, value, text = number(value) }) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = `${(100 * value) / most}%`;
      return el(
        "li",
        {},
        el("span", { class: "name", text: name }),
        el("span", { class: "track" }, bar),
        el("span", { class: "value", text }),
      );
    }),
  );
}
