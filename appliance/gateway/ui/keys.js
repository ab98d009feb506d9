// Keys by name: who may do what, and until when.

import { json } from "./api.js";
import { $, h, pill } from "./dom.js";

export async function loadKeys() {
  const keys = await json("GET", "/admin/v1/keys");
  if (!keys.length) {
    $("key-list").replaceChildren(h("p", { class: "card" }, "There are no keys: whoever reaches this port on this machine may ask the models."));
    return;
  }
  const columns = ["Key", "Scopes", "Models", "Limits", "Expires"];
  $("key-list").replaceChildren(
    h("div", { class: "card flush scroll", tabindex: 0, role: "region", "aria-label": "Keys" },
      h("table", {},
        h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, keys.map(row)))),
  );
}

function row({ name, scopes, models, limits, expires }) {
  const set = Object.entries(limits).filter(([, value]) => value != null);
  const over = expires && expires < new Date().toISOString().slice(0, 10);
  return h("tr", {},
    h("th", { scope: "row" }, name),
    h("td", {}, scopes.map((scope) => [pill(scope, scope === "admin" ? "warn" : "", { plain: true }), " "])),
    h("td", {}, h("code", {}, models.join(" "))),
    h("td", {}, set.length ? set.map(([limit, value]) => h("div", { class: "small" }, `${value} ${limit.replaceAll("_", " ")}`)) : h("span", { class: "muted" }, "none")),
    h("td", {}, over ? pill(`expired ${expires}`, "bad") : (expires ?? h("span", { class: "muted" }, "never"))),
  );
}
