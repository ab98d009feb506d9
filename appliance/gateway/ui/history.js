// Generations of the file: what changed, what came of it, and the way back.

import { ask, json, text } from "./api.js";
import { $, h, pill, showDifference } from "./dom.js";
import { ago, moment } from "./format.js";

const TONES = { ready: "good", degraded: "bad", applying: "warn", superseded: "" };

export class History {
  constructor(notify) {
    this.notify = notify;
    $("close-difference").addEventListener("click", () => this.close());
  }

  async load() {
    const entries = await json("GET", "/admin/v1/history");
    const last = entries.at(-1)?.generation;
    $("generations").replaceChildren(...entries.reverse().map((entry) => this.row(entry, last)));
  }

  row(entry, last) {
    const { generation, time, result, message, changes } = entry;
    const paths = Object.entries(changes);
    return h("tr", {},
      h("th", { scope: "row" }, String(generation), generation === last ? h("span", { class: "muted small" }, " now") : ""),
      h("td", {}, h("time", { datetime: time, title: moment(time) }, ago(time))),
      h("td", {}, pill(result, TONES[result]), message ? h("p", { class: "small muted" }, message) : ""),
      h("td", {}, h("div", { class: "changes small" }, paths.length
        ? paths.map(([path, cost]) => h("span", {}, h("code", {}, path), " ", h("span", { class: "muted" }, cost)))
        : h("span", { class: "muted" }, "as it was started"))),
      h("td", { class: "actions" },
        generation > 1 ? h("button", { type: "button", "aria-label": `What generation ${generation} changed`, onclick: (event) => this.show(generation, event.target) }, "What changed") : "",
        generation === last ? "" : h("button", { type: "button", "aria-label": `Roll back to generation ${generation}`, onclick: () => this.rollBack(generation, last) }, "Roll back")),
    );
  }

  async show(generation, button) {
    this.opener = button;
    const difference = await text(`/admin/v1/diff?from=${generation - 1}&to=${generation}`);
    $("difference-title").textContent = `What generation ${generation} changed`;
    showDifference($("difference-text"), difference);
    $("difference").hidden = false;
    $("difference-title").focus();
  }

  close() {
    $("difference").hidden = true;
    this.opener?.focus();
  }

  async rollBack(generation, last) {
    showDifference($("confirm-difference"), await text(`/admin/v1/diff?from=${last}&to=${generation}`));
    $("confirm-title").textContent = `Roll back to generation ${generation}?`;
    $("confirm-text").textContent = "This is what changes in the file. Engines that have to move are replaced without dropping a request.";
    const dialog = $("confirm");
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "yes") return;
    const outcome = await (await ask("POST", `/admin/v1/rollback?generation=${generation}`)).json();
    this.notify(outcome.problem ?? `Generation ${generation} was written back to the file.`, outcome.problem ? "bad" : "good");
    location.hash = "#/overview";
  }
}
