// The rollout of the newest generation, step by step, put together from the stream of events.

import { $, h, pill, prose } from "./dom.js";
import { count, duration } from "./format.js";

const TITLES = {
  start: "Start the new engine",
  admit: "Get memory",
  ready: "Prove it and move traffic",
  drain: "Drain the old engine",
  stop: "Stop the old engine",
};
const SHORT = { forget: "forgotten", admit: "memory", refuse: "refused" };

export class Rollout {
  constructor() {
    this.reset();
  }

  // Another control process tells its own story.
  reset() {
    this.generation = null;
    this.began = null;
    this.changes = {};
    this.result = null;
    this.message = "";
    this.problem = null;
    this.told = [];
    this.ended = null;
    this.open = null; // whether every step is shown: unless somebody says so, while it is under way
  }

  hear(kind, data) {
    if (kind === "reload") {
      if (data.problem) return; // nothing moves; the notice above says why
      this.reset();
      this.generation = data.generation;
      this.changes = data.changes;
    } else if (this.ended && kind !== "generation") {
      const { generation } = this;
      this.reset(); // nobody saved anything: a crash, a model asked for, or one that was idle
      this.generation = generation;
    }
    this.began ??= data.time;
    if (kind === "generation") {
      this.generation = data.generation;
      this.result = data.result;
      this.message = data.message;
      this.ended = data.time;
    }
    this.told.push({ kind, ...data });
  }

  // What each model went through, in the order in which it first moved.
  get moves() {
    const moves = new Map();
    for (const event of this.told) {
      if (!event.model) continue;
      const move = moves.get(event.model) ?? { model: event.model, steps: [], revision: null, failed: null };
      moves.set(event.model, move);
      const step = event.kind === "engine" ? event.state : event.action;
      if (step === "start") Object.assign(move, { revision: event.revision, failed: null, steps: move.steps.filter((s) => s !== "start" && s !== "ready") });
      if (step === "failed" || step === "refuse") move.failed = event.message ?? event.reason;
      else if (step in TITLES && !move.steps.includes(step)) move.steps.push(step);
    }
    return [...moves.values()];
  }
}

export function showRollout(rollout, status) {
  $("rollout-state").replaceChildren(...headline(rollout));
  if (!rollout.told.length) {
    $("rollout").replaceChildren(h("p", { class: "muted" }, "Nothing has moved since this appliance was started. Save the file, and its steps appear here."));
    return;
  }
  const changes = Object.entries(rollout.changes);
  const timeline = h("div", { class: "timeline", tabindex: 0, role: "region", "aria-label": "Every step" },
    h("ol", {}, rollout.told.map((event) => line(rollout, event))));
  $("rollout").replaceChildren(
    changes.length ? h("p", { class: "small" }, changes.map(([path, cost]) => [h("code", {}, path), " ", pill(cost, "", { plain: true }), " "]).flat()) : "",
    ...rollout.moves.map((move) => mover(move, rollout, status)),
    h("details", { class: "every", open: rollout.open ?? !rollout.ended },
      h("summary", { onclick: (event) => (rollout.open = !event.target.parentElement.open) }, "Every step"), timeline),
  );
  timeline.scrollTop = timeline.scrollHeight;
}

function headline(rollout) {
  if (rollout.generation == null && !rollout.told.length) return [];
  const name = rollout.generation == null ? "" : `Generation ${rollout.generation} `;
  if (!rollout.ended) return [name, pill("under way", "warn", { busy: true })];
  const took = duration((Date.parse(rollout.ended) - Date.parse(rollout.began)) / 1000);
  return [`${name}after ${took} `, pill(rollout.result, rollout.result === "ready" ? "good" : "bad")];
}

function mover(move, rollout, status) {
  const model = status.models.find((each) => each.name === move.model);
  const engines = model?.engines ?? [];
  const starting = engines.find((engine) => engine.state === "starting");
  const steps = move.steps.map((step) => [step, "done"]);
  const coming = [];
  if (move.steps.includes("start") && !move.failed) {
    coming.push(...["admit", "ready"].filter((step) => !move.steps.includes(step)));
    if (engines.some((engine) => engine.revision !== move.revision)) coming.push(...["drain", "stop"].filter((step) => !move.steps.includes(step)));
  } else if (move.steps.includes("drain") && !move.steps.includes("stop")) coming.push("stop");
  if (!rollout.ended) steps.push(...coming.map((step, index) => [step, index === 0 ? "now" : "todo"]));
  if (move.failed) steps.push(["failed", "failed"]);
  if (!steps.length) return "";
  const marks = { done: "✓", now: "•", todo: "", failed: "!" };
  return h("div", { class: "mover" },
    h("h3", {}, move.model, h("span", { class: "muted small" }, move.revision ? h("code", {}, move.revision.slice(0, 8)) : "", starting?.step && !rollout.ended ? ` ${starting.step}` : "")),
    h("ol", { class: "steps", "aria-label": `Steps of ${move.model}` }, steps.map(([step, state]) =>
      h("li", { class: state, "aria-current": state === "now" ? "step" : null },
        h("span", { class: "dot", "aria-hidden": "true" }, marks[state]),
        h("span", {}, step === "failed" ? prose(move.failed) : TITLES[step]), state === "done" ? h("span", { class: "hidden" }, "done") : ""))),
  );
}

function line(rollout, event) {
  const seconds = (Date.parse(event.time) - Date.parse(rollout.began)) / 1000;
  const step = event.kind === "engine" ? event.state : (event.action ?? event.kind);
  const why =
    event.kind === "reload" ? `the file was read: ${count(Object.keys(event.changes).length, "change")}` :
    event.kind === "generation" ? (event.message || `generation ${event.generation} is ${event.result}`) :
    (event.message ?? event.reason ?? "");
  const who = event.model ? `${event.model} ${event.revision.slice(0, 8)}` : "";
  return h("li", {},
    h("span", { class: "at" }, `+${seconds.toFixed(2)} s`),
    h("span", { class: "what" }, SHORT[step] ?? step),
    h("span", { class: "why" }, who ? h("code", {}, who) : "", who && why ? " " : "", prose(why)));
}
