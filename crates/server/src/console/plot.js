// Small plots of the last two minutes, drawn as SVG.

import { h, s } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 56;

/** Lines over time. `series` are `{ name, unit }`, the first one filled; `top` fixes the scale. */
export class Plot {
  #samples = [];

  constructor({ title, series, format, top = null, capacity }) {
    Object.assign(this, { title, series, format, top, capacity });
    this.values = series.map((_, i) => h("span", { class: `value series-${i}` }, "–"));
    this.scale = h("span", { class: "scale" });
    this.area = s("path", { class: "area" });
    this.lines = series.map((_, i) => s("path", { class: `line series-${i}` }));
    this.cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      s("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
      this.area, this.lines.toReversed(), this.cursor);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#point(null));
    this.element = h("figure", { class: "plot" },
      h("figcaption", {}, h("span", { class: "plot-title" }, title), this.scale),
      h("div", { class: "values" }, series.map(({ name }, i) => h("span", {}, this.values[i], name && h("span", { class: "unit" }, ` ${name}`)))),
      this.svg);
    this.#draw();
  }

  /** One number for each series; null where nothing is known. */
  push(values) {
    this.#samples.push(values);
    if (this.#samples.length > this.capacity) this.#samples.shift();
    this.#draw();
  }

  #draw() {
    const known = this.#samples.flat().filter((value) => value !== null);
    const top = this.top ?? niceTop(Math.max(0, ...known));
    this.scale.textContent = known.length ? this.format(top) : "";
    this.lines.forEach((line, i) => line.setAttribute("d", this.#path(i, top)));
    const path = this.#path(0, top);
    const first = this.#x(this.#samples.findIndex(([value]) => value !== null));
    this.area.setAttribute("d", path && `${path}L${WIDTH} ${HEIGHT}L${first} ${HEIGHT}Z`);
    this.#say(this.#samples.at(-1));
  }

  #say(values) {
    const texts = this.series.map((_, i) => (values?.[i] == null ? "–" : this.format(values[i])));
    texts.forEach((text, i) => { this.values[i].textContent = text; });
    const named = texts.map((text, i) => `${text} ${this.series[i].name}`.trim());
    this.svg.setAttribute("aria-label", `${this.title}: ${named.join(", ")}`);
  }

  // The newest sample is at the right end.
  #x(index) {
    return WIDTH * (1 - (this.#samples.length - 1 - index) / (this.capacity - 1));
  }

  #path(i, top) {
    let path = "";
    this.#samples.forEach((sample, at) => {
      if (sample[i] === null) return;
      const y = HEIGHT - 1 - (HEIGHT - 3) * Math.min(sample[i] / top, 1);
      path += `${path ? "L" : "M"}${this.#x(at).toFixed(1)} ${y.toFixed(1)}`;
    });
    return path;
  }

  #point(event) {
    const box = this.svg.getBoundingClientRect();
    const age = event && Math.round((1 - (event.clientX - box.left) / box.width) * (this.capacity - 1));
    const at = this.#samples.length - 1 - age;
    const isOn = event !== null && at >= 0 && at < this.#samples.length;
    this.cursor.setAttribute("visibility", isOn ? "visible" : "hidden");
    if (isOn) {
      this.cursor.setAttribute("x1", this.#x(at));
      this.cursor.setAttribute("x2", this.#x(at));
    }
    this.#say(this.#samples.at(isOn ? at : -1));
  }
}

/** The next of 1, 2, 5, 10, 20, 50, ... */
function niceTop(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}
