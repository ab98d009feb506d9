// Where the page is wired: who is asking, which view is open, and one stream of events that feeds them all.

import { Refused, ask, events, json, key } from "./api.js";
import { Chat } from "./chat.js";
import { $, h, prose } from "./dom.js";
import { History } from "./history.js";
import { loadKeys } from "./keys.js";
import { Logs } from "./logs.js";
import { file, showModels, showTiles } from "./models.js";
import { Plots } from "./plots.js";
import { Rollout, showRollout } from "./rollout.js";

const VIEWS = ["overview", "chat", "history", "logs", "keys"];
const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;
const REDRAW = 1000; // what is told as "3 s ago" grows old by itself

const rollout = new Rollout();
const chat = new Chat();
const logs = new Logs();
const history = new History(notify);
const plots = new Plots();
let status = null;
let following = null;
let heard = Date.now();

// Signing in and out

async function begin() {
  try {
    hear(await json("GET", "/admin/v1/status"));
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) return signIn(error);
    connection("lost", "Not reached");
    setTimeout(begin, LONGEST_WAIT);
    return;
  }
  $("sign-out").hidden = !key.get();
  following = new AbortController();
  follow("/admin/v1/events", following.signal, happened);
  follow("/admin/v1/activity?follow=true", following.signal, ({ data }) => plots.hear(JSON.parse(data)));
  open();
}

function signIn(error) {
  leave();
  $("sign-in-why").textContent = error.code === "key_required" ? error.message : "This appliance has keys. What is shown here needs one with the scope admin.";
  $("sign-in-error").textContent = key.get() ? error.message : "";
  key.forget();
  $("sign-out").hidden = true;
  show("sign-in");
  $("key").value = "";
  $("key").focus();
}

function leave() {
  following?.abort();
  following = null;
  status = null;
  logs.close();
  connection("", "Not signed in");
}

$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  begin();
});
$("sign-out").addEventListener("click", () => {
  key.forget();
  location.reload();
});

// What happens

// Begins again where it stopped, for as long as the key is good.
async function follow(path, signal, tell) {
  let wait = FIRST_WAIT;
  let last = "";
  while (!signal.aborted) {
    try {
      const response = await ask("GET", path, { signal, headers: last ? { "last-event-id": last } : {} });
      connection("live", "Live");
      for await (const event of events(response)) {
        wait = FIRST_WAIT;
        last = event.id || last;
        if (event.data) tell(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [401, 403].includes(error.status)) return signIn(error);
    }
    if (signal.aborted) return;
    connection("lost", "Connection lost, trying again");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

function happened({ event, data }) {
  const told = JSON.parse(data);
  if (event === "status") return hear(told);
  rollout.hear(event, told);
  if (event === "generation" || event === "reload") refresh();
  if (status) showRollout(rollout, status);
}

function hear(now) {
  if (status && status.started !== now.started) rollout.reset();
  status = now;
  heard = Date.now();
  showTiles(now);
  showModels(now);
  showRollout(rollout, now);
  showNotices(now);
  chat.offer(now);
  logs.offer(now);
  $("file").textContent = file(now.file);
  $("identity").textContent = `${now.address}, version ${now.version}`;
  document.title = `${now.ready ? "" : "● "}appliance ${now.address}`;
}

setInterval(() => {
  if (!status || document.hidden || current() !== "overview") return;
  const since = (Date.now() - heard) / 1000;
  showModels(aged(since));
}, REDRAW);

const aged = (since) => ({
  ...status,
  models: status.models.map((model) => ({ ...model, engines: model.engines.map((engine) => ({ ...engine, age: engine.age + since })) })),
});

function connection(kind, text) {
  $("connection").className = `connection ${kind}`;
  if ($("connection").textContent !== text) $("connection").textContent = text;
}

// What a person has to do something about

function showNotices(now) {
  const found = [];
  if (now.problem) found.push(["bad", `The file cannot be used as it is now; the last valid one is in force.\n${now.problem}`]);
  if (now.waiting_for_restart.length) found.push(["", `Changed, and in force after \`appliance restart\`: ${now.waiting_for_restart.join(", ")}`]);
  found.push(...(now.drift ?? []).map((each) => ["", `Drift of ${each.name}: ${each.kind} ${each.message}`]));
  const text = found.map(([, each]) => each).join("\n");
  if ($("notices").dataset.text === text) return; // said once, not with every event
  $("notices").dataset.text = text;
  $("notices").replaceChildren(...found.map(([tone, each]) => h("p", { class: `notice ${tone}` }, prose(each))));
}

function notify(text, tone) {
  const notice = h("p", { class: `notice ${tone}` }, prose(text));
  $("notices").append(notice);
  setTimeout(() => notice.remove(), 8000);
}

// Views

// `#/logs/tiny`. The slash keeps the browser from jumping to the element of that name, focus and all.
const place = () => location.hash.slice(2).split("/").map(decodeURIComponent);
const current = () => place()[0] || VIEWS[0];

function show(view) {
  for (const section of document.querySelectorAll("main > .view")) section.hidden = section.id !== view;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function open() {
  if (!status) return;
  const [name, argument] = place();
  const view = VIEWS.includes(name) ? name : VIEWS[0];
  show(view);
  if (view !== "logs") logs.close();
  if (view === "logs") (logs.choose(argument), logs.open());
  if (view === "chat") (chat.choose(argument), $("prompt").focus());
  if (view === "overview") plots.draw();
  refresh();
}

// What is not in the stream of events is read again when it may have changed.
async function refresh() {
  if (current() === "history") await history.load();
  if (current() === "keys") await loadKeys();
}

// Whatever a button or a view asked for and did not get. A bug is not among these, and stays the console's.
addEventListener("unhandledrejection", (event) => {
  const error = event.reason;
  if (!(error instanceof Refused)) return;
  event.preventDefault();
  if ([401, 403].includes(error.status)) signIn(error);
  else notify(error.message, "bad");
});

addEventListener("hashchange", () => {
  open();
  if (current() !== "chat") $("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("visibilitychange", () => document.hidden || plots.draw());
addEventListener("resize", () => plots.draw());

// Theme

const THEMES = ["system", "light", "dark"];
const theme = () => document.documentElement.dataset.theme ?? "system";
const showTheme = () => ($("theme").textContent = `Theme: ${theme()}`);
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (next === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("appliance-theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("appliance-theme", next);
  }
  showTheme();
});

showTheme();
begin();
