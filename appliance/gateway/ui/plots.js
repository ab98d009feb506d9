// Plots of the last minutes, drawn here: a line or two, a scale from zero, and what was under the cursor.

import { $, h, svg } from "./dom.js";
import { duration, number, size } from "./format.js";

const WIDTH = 360;
const HEIGHT = 125;
const SPANS = [60, 150]; // points across the plot, for as long as there are no more
const EDGE = { left: 42, right: 8, top: 8, bottom: 18 };

const rate = (name) => (point, interval) => point[name] / interval;
const milliseconds = (value) => (value >= 1000 ? `${number(value / 1000)} s` : `${number(value)} ms`);

const PLOTS = [
  { id: "requests", title: "Requests per second", format: number, lines: [
    { name: "requests", of: rate("requests") }, { name: "errors", of: rate("errors"), style: "second" }] },
  { id: "tokens", title: "Tokens per second", format: number, lines: [
    { name: "written", of: rate("completion_tokens") }, { name: "read", of: rate("prompt_tokens"), style: "second" }] },
  { id: "first-token", title: "Time to first token", format: milliseconds, lines: [
    { name: "median", of: (point) => point.first_token?.[0] ?? null }, { name: "p95", of: (point) => point.first_token?.[1] ?? null, style: "second" }] },
  { id: "in-flight", title: "In flight and waiting", format: number, lines: [
    { name: "in flight", of: (point) => point.in_flight }, { name: "waiting", of: (point) => point.waiting, style: "second" }] },
  { id: "memory", title: "Memory against the budget", format: size, lines: [
    { name: "taken", of: (point) => point.memory }, { name: "budget", of: (point) => point.budget, style: "limit" }] },
];

export class Plots {
  constructor() {
    this.points = [];
    this.interval = 1;
    this.shown = 0;
    this.figures = PLOTS.map((plot) => ({ plot, ...frame(plot) }));
    $("plots").replaceChildren(...this.figures.map(({ figure }) => figure));
    this.figures.forEach((each) => follow(each, this));
  }

  hear({ interval, kept, points, fresh }) {
    this.interval = interval;
    this.kept = kept;
    this.points = (fresh ? points : [...this.points, ...points]).slice(-kept);
    this.shown = SPANS.find((span) => span >= this.points.length) ?? kept;
    $("plots-span").textContent = `the last ${duration(interval * this.shown)}`;
    if (!document.hidden) this.draw();
  }

  draw() {
    for (const each of this.figures) draw(each, this);
  }
}

function frame(plot) {
  const value = h("span", { class: "value" }, "–");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${plot.title}: nothing yet`, preserveAspectRatio: "none" });
  const legend = h("p", { class: "legend", "aria-hidden": "true" }, plot.lines.map((line) => h("span", { class: line.style ?? "first" }, line.name)));
  const title = h("span", {}, plot.title);
  return { figure: h("figure", { class: "card plot", id: `plot-${plot.id}` }, h("figcaption", {}, title, value), picture, legend), picture, value, legend };
}

function draw({ plot, picture, value }, { points, interval, shown }) {
  const width = Math.max(200, picture.clientWidth || WIDTH);
  picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const series = plot.lines.map((line) => points.map((point) => line.of(point, interval)));
  const most = Math.max(0, ...series.flat().filter((v) => v != null));
  const top = ceiling(most, plot.format);
  const x = (index) => EDGE.left + ((shown - points.length + index) / Math.max(1, shown - 1)) * (width - EDGE.left - EDGE.right);
  const y = (v) => EDGE.top + (1 - v / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  picture.replaceChildren(
    ...[0, 0.5, 1].flatMap((share) => [
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(share * top), y2: y(share * top) }),
      svg("text", { x: EDGE.left - 6, y: y(share * top) + 3.5, "text-anchor": "end" }, short(share * top, plot.format)),
    ]),
    svg("text", { x: EDGE.left, y: HEIGHT - 3 }, `−${duration(interval * shown)}`),
    svg("text", { x: width - EDGE.right, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
    svg("path", { class: "area", d: area(series[0], x, y) }),
    ...series.map((values, index) => svg("path", { class: plot.lines[index].style ?? "first", d: path(values, x, y) })),
  );
  const now = series.map((values) => values.findLast((v) => v != null) ?? null);
  value.textContent = now[0] == null ? "–" : plot.format(now[0]);
  const peak = Math.max(0, ...series[0].filter((v) => v != null));
  picture.setAttribute("aria-label", `${plot.title}: ${plot.lines.map((line, i) => `${line.name} ${now[i] == null ? "not known" : plot.format(now[i])}`).join(", ")}; at most ${plot.format(peak)} in the last ${duration(interval * shown)}`);
}

// A round number above the largest value: 1, 2 or 5 times a power of ten, or of two for bytes.
function ceiling(most, format) {
  if (!most) return 1;
  if (format === size) return 2 ** Math.ceil(Math.log2(most * 1.05));
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most);
}

const short = (value, format) => (value === 0 ? "0" : format(value).replace(".0 ", " "));

// Gaps stay gaps: between two points with nothing to say there is no line.
function path(values, x, y) {
  let drawing = false;
  return values.map((v, index) => {
    if (v == null) return (drawing = false), "";
    const step = `${drawing ? "L" : "M"}${x(index).toFixed(1)} ${y(v).toFixed(1)}`;
    const alone = !drawing && values[index + 1] == null ? "h0.01" : "";
    drawing = true;
    return step + alone;
  }).join("");
}

function area(values, x, y) {
  if (values.some((v) => v == null) || !values.length) return "";
  return `${path(values, x, y)}L${x(values.length - 1).toFixed(1)} ${y(0)}L${x(0).toFixed(1)} ${y(0)}Z`;
}

function follow({ plot, picture, legend }, plots) {
  const names = [...legend.children];
  const rest = () => {
    picture.querySelector(".cursor")?.remove();
    names.forEach((name, index) => (name.textContent = plot.lines[index].name));
  };
  picture.addEventListener("pointerleave", rest);
  picture.addEventListener("pointermove", ({ offsetX }) => {
    const { points, interval, shown } = plots;
    const width = picture.clientWidth;
    const index = Math.round(((offsetX - EDGE.left) / (width - EDGE.left - EDGE.right)) * (shown - 1)) - (shown - points.length);
    if (!points[index]) return rest();
    const x = EDGE.left + ((shown - points.length + index) / (shown - 1)) * (width - EDGE.left - EDGE.right);
    picture.querySelector(".cursor")?.remove();
    picture.append(svg("line", { class: "cursor", x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    plot.lines.forEach((line, i) => {
      const v = line.of(points[index], interval);
      names[i].textContent = `${line.name} ${v == null ? "–" : plot.format(v)}`;
    });
  });
}
