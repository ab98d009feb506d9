// A log as it grows.

import { ask, pieces } from "./api.js";
import { $, h } from "./dom.js";
import { count } from "./format.js";

const MOST = 5000;
const ITSELF = "the appliance itself";
const TROUBLE = [[/\b(ERROR|CRITICAL|Traceback|error:)/, "err"], [/\b(WARNING|WARN)\b/i, "wrn"]];

export class Logs {
  constructor() {
    this.lines = [];
    $("log-of").addEventListener("change", () => this.open());
    $("log-filter").addEventListener("input", () => this.draw());
    $("log-follow").addEventListener("change", () => this.scroll());
    $("log-form").addEventListener("submit", (event) => event.preventDefault());
  }

  offer(status) {
    const names = ["", ...status.models.map((model) => model.name)];
    const select = $("log-of");
    if ([...select.options].map((option) => option.value).join("\n") === names.join("\n")) return;
    const before = select.value;
    select.replaceChildren(...names.map((name) => h("option", { value: name }, name || ITSELF)));
    select.value = names.includes(before) && before ? before : (names[1] ?? "");
  }

  choose(model) {
    if (model) $("log-of").value = model;
  }

  close() {
    this.reading?.abort();
  }

  async open() {
    this.close();
    const reading = (this.reading = new AbortController());
    this.lines = [];
    this.draw();
    const model = $("log-of").value;
    const query = new URLSearchParams({ lines: "500", follow: "true", ...(model && { model }) });
    try {
      const response = await ask("GET", `/admin/v1/logs?${query}`, { signal: reading.signal });
      for await (const lines of pieces(response, "\n")) this.add(lines);
    } catch (error) {
      if (!reading.signal.aborted) $("log-count").textContent = error.message;
    }
  }

  add(lines) {
    this.lines.push(...lines);
    if (this.lines.length > MOST) {
      this.lines.splice(0, this.lines.length - MOST);
      this.draw();
      return;
    }
    $("log").append(...this.matching(lines).map(render));
    this.told();
    this.scroll();
  }

  draw() {
    $("log").replaceChildren(...this.matching(this.lines).map(render));
    this.told();
    this.scroll();
  }

  matching(lines) {
    const wanted = $("log-filter").value.toLowerCase();
    return wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
  }

  told() {
    $("log-count").textContent = count($("log").children.length, "line");
  }

  scroll() {
    if ($("log-follow").checked) $("log").scrollTop = $("log").scrollHeight;
  }
}

function render(line) {
  const [, tone] = TROUBLE.find(([pattern]) => pattern.test(line)) ?? [null, ""];
  return h("span", { class: tone }, `${line}\n`);
}
