// The tiles, and one card per model: state, conditions with their reasons, engines.

import { $, h, pill, prose } from "./dom.js";
import { ago, count, duration, size } from "./format.js";

const TONES = { ready: "good", starting: "warn", draining: "warn", stopping: "warn", failed: "bad", stopped: "" };
const MOVING = new Set(["starting", "draining", "stopping"]);

export function showTiles(status) {
  const ready = status.models.filter((model) => model.ready).length;
  const degraded = status.models.filter((model) => model.conditions.some(({ type }) => type === "Degraded")).length;
  const engines = status.models.flatMap((model) => model.engines);
  const { taken, budget } = status.memory;
  const share = budget ? taken / budget : 0;
  $("tiles").replaceChildren(
    tile("Models ready", `${ready} of ${status.models.length}`, degraded ? h("span", { class: "bad" }, `${degraded} degraded`) : status.ready ? "all as the file wants them" : "not yet as the file wants them"),
    tile("Generation", status.generation, h("span", { class: "where" }, file(status.file))),
    tile("In flight", engines.reduce((sum, engine) => sum + engine.in_flight, 0), `${count(engines.length, "engine")}, up ${ago(status.started).replace(" ago", "")}`),
    h("div", { class: "tile" },
      h("dt", {}, "Memory"),
      h("dd", {}, size(taken), h("span", { class: "muted small" }, ` of ${size(budget)}`),
        h("meter", { min: 0, max: 1, low: 0.85, high: 0.95, optimum: 0.1, value: share.toFixed(3), "aria-label": `Memory taken: ${Math.round(share * 100)} % of the budget` })),
    ),
  );
}

const tile = (name, value, note) =>
  h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, String(value), h("div", { class: "muted small" }, note)));

export const file = (path) => path.split("/").pop() || "no file";

export function showModels(status) {
  const list = $("models");
  const known = new Map([...list.children].map((card) => [card.dataset.model, card]));
  const cards = status.models.map((model) => {
    const card = known.get(model.name) ?? create(model.name);
    update(card, model);
    return card;
  });
  // Cards stay the same elements, so that whoever has the focus in one keeps it.
  if (cards.length !== list.children.length || cards.some((card, index) => list.children[index] !== card)) {
    list.replaceChildren(...cards);
  }
  if (!cards.length) list.replaceChildren(h("p", { class: "muted" }, "The file names no models."));
}

function create(name) {
  const title = `model-${name}`;
  return h("article", { class: "card model", "data-model": name, "aria-labelledby": title },
    h("div", { class: "head" }, h("h3", { id: title }, name), h("span", { class: "state" })),
    h("p", { class: "muted small where mono" }),
    h("dl", { class: "facts" }),
    h("ul", { class: "conditions", "aria-label": `Conditions of ${name}` }),
    h("p", { class: "links" },
      h("a", { href: `#/chat/${encodeURIComponent(name)}`, "aria-label": `Try ${name} in the playground` }, "Try it"),
      h("a", { href: `#/logs/${encodeURIComponent(name)}`, "aria-label": `Log of ${name}` }, "Log")),
  );
}

function update(card, model) {
  const engine = model.engines.find((each) => each.state === model.state) ?? {};
  const others = model.engines.filter((each) => each !== engine);
  card.querySelector(".state").replaceChildren(pill(model.state, TONES[model.state], { busy: MOVING.has(model.state) }));
  card.querySelector(".where").textContent = model.source;
  card.querySelector(".facts").replaceChildren(
    ...fact("Backend", model.backend),
    ...fact("Loaded", model.load === "startup" ? "at start" : "on demand"),
    ...fact("Revision", h("code", {}, engine.revision?.slice(0, 8) ?? "–")),
    ...fact("Memory", size(engine.memory)),
    ...fact("In flight", engine.in_flight ?? 0),
    ...fact("Restarts", model.restarts),
    ...fact("Process", engine.pid ?? "–"),
    ...fact("For", engine.age == null ? "–" : duration(engine.age)),
    ...others.flatMap((other) => fact(`Also ${other.state}`, h("code", { title: other.step ?? "" }, other.revision.slice(0, 8)))),
  );
  card.querySelector(".conditions").replaceChildren(...model.conditions.map(condition));
}

const fact = (name, value) => [h("div", {}, h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value)))];

function condition({ type, status, reason, message, since }) {
  const asleep = reason === "NotLoaded";
  const tone = type === "Ready" && status ? "good" : type === "Degraded" ? "bad" : asleep ? "" : "warn";
  return h("li", {},
    pill(asleep ? "Asleep" : type === "Ready" && !status ? "Not ready" : type, tone, { busy: type === "Progressing" }),
    h("span", {}, reason, h("span", { class: "muted small" }, ` · ${ago(since)}`)),
    h("p", { class: "message muted small" }, prose(message)),
  );
}
