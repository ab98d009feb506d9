// Elements from plain data. Text is always text: there is no way to HTML here, and the page's policy forbids one.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

// What the appliance says in `backticks` is a name, a value or a command.
export function prose(text) {
  const parts = text.split("`");
  return parts.length % 2 ? parts.map((part, index) => (index % 2 ? h("code", {}, part) : part)) : text;
}

export function pill(text, tone = "", { busy = false, plain = false } = {}) {
  return h("span", { class: ["pill", tone, busy && "busy", plain && "plain"].filter(Boolean).join(" ") }, text);
}

// A unified diff, line by line, told apart by its signs as much as by colour.
export function showDifference(pre, text) {
  const kinds = { "+": "plus", "-": "minus", "@": "hunk" };
  pre.classList.add("diff");
  pre.replaceChildren(
    ...(text || "No difference.").split("\n").map((line) => h("span", { class: /^(---|\+\+\+) /.test(line) ? "hunk" : (kinds[line[0]] ?? "") }, line)),
  );
}
