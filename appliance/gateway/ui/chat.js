// The playground: one conversation with one model, streamed.

import { ask, events } from "./api.js";
import { $, h } from "./dom.js";
import { duration, number } from "./format.js";

const IDEAS = ["What can you help me with?", "Explain a KV cache in two sentences.", "Write a haiku about a quiet server."];

export class Chat {
  constructor() {
    this.said = [];
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        $("composer").requestSubmit();
      }
    });
    $("stop").addEventListener("click", () => this.asking?.abort());
    $("clear").addEventListener("click", () => this.clear());
    document.querySelector(".settings").addEventListener("input", () => this.showCurl());
    this.clear();
  }

  offer(status) {
    const names = status.models.map((model) => model.name);
    const select = $("model");
    if ([...select.options].map((option) => option.value).join("\n") === names.join("\n")) return;
    const before = select.value;
    select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(before)) select.value = before;
    this.showCurl();
  }

  choose(model) {
    if (model) $("model").value = model;
    this.showCurl();
  }

  clear() {
    this.asking?.abort();
    this.said = [];
    $("figures").textContent = "";
    const idea = (text) => h("button", { type: "button", onclick: () => this.send(text) }, text);
    $("messages").replaceChildren(
      h("div", { class: "hello" }, h("p", { class: "muted" }, "Ask the model something. Nothing is kept."), h("div", { class: "row" }, IDEAS.map(idea))));
  }

  request() {
    const system = $("system").value.trim();
    const temperature = $("temperature").value;
    return {
      model: $("model").value,
      messages: [...(system ? [{ role: "system", content: system }] : []), ...this.said],
      stream: true,
      stream_options: { include_usage: true },
      ...(temperature !== "" && { temperature: Number(temperature) }),
      ...($("max-tokens").value && { max_tokens: Number($("max-tokens").value) }),
    };
  }

  showCurl() {
    const { messages, stream_options: _, ...rest } = this.request();
    const body = JSON.stringify({ ...rest, messages: messages.length ? messages.slice(-1) : [{ role: "user", content: "Hello" }] });
    $("curl").textContent = `curl -N ${location.origin}/v1/chat/completions \\\n  -H "Authorization: Bearer $API_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
  }

  async send(text = $("prompt").value.trim()) {
    if (!text || this.asking) return;
    if (!this.said.length) $("messages").replaceChildren();
    this.said.push({ role: "user", content: text });
    $("prompt").value = "";
    $("messages").append(h("div", { class: "message user" }, h("p", { class: "hidden" }, "You"), h("p", { class: "body" }, text)));
    const answer = new Answer($("model").value);
    $("messages").append(answer.element);
    this.toggle(new AbortController());
    try {
      const response = await ask("POST", "/v1/chat/completions", { body: this.request(), signal: this.asking.signal, as: $("chat-key").value });
      for await (const { data } of events(response)) if (data && data !== "[DONE]") answer.hear(JSON.parse(data));
    } catch (error) {
      if (!this.asking.signal.aborted) answer.fail(error.code === "insufficient_scope" ? `${error.message}. Give another key at the side.` : error.message);
    }
    answer.end();
    this.toggle(null);
    if (answer.text) this.said.push({ role: "assistant", content: answer.text });
    else this.said.pop();
    this.showCurl();
    $("prompt").focus();
  }

  toggle(asking) {
    this.asking = asking;
    $("send").disabled = asking !== null;
    $("stop").disabled = asking === null;
  }
}

class Answer {
  constructor(model) {
    this.began = performance.now();
    this.first = null;
    this.text = "";
    this.thought = "";
    this.tokens = 0;
    this.body = h("div", { class: "body" });
    this.thinking = h("p", { class: "thought small", hidden: true });
    this.element = h("div", { class: "message writing" }, h("p", { class: "who" }, model), this.thinking, this.body);
    this.element.setAttribute("aria-busy", "true"); // said as a whole when it is complete, not word by word
  }

  hear(chunk) {
    if (chunk.error) return this.fail(chunk.error.message);
    if (chunk.usage) this.tokens = chunk.usage.completion_tokens;
    const delta = chunk.choices?.[0]?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    if (!delta.content && !thought) return;
    this.first ??= performance.now();
    this.text += delta.content ?? "";
    this.thought += thought;
    if (!chunk.usage) this.tokens += 1;
    this.drawing ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = null;
    const list = $("messages");
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    this.body.replaceChildren(...blocks(this.text));
    this.thinking.hidden = !this.thought;
    this.thinking.textContent = this.thought;
    if (atEnd) list.scrollTop = list.scrollHeight;
    this.showFigures();
  }

  showFigures() {
    if (this.first === null) return;
    const seconds = (performance.now() - this.first) / 1000;
    const pace = this.tokens > 1 && seconds > 0 ? `, ${number((this.tokens - 1) / seconds)} tokens/s` : "";
    $("figures").textContent = `first token after ${duration((this.first - this.began) / 1000)}, ${this.tokens} tokens${pace}`;
  }

  fail(message) {
    this.element.classList.add("failed");
    this.element.append(h("p", { class: "body", role: "alert" }, message));
  }

  end() {
    if (this.drawing) cancelAnimationFrame(this.drawing);
    this.draw();
    this.element.classList.remove("writing");
    this.element.removeAttribute("aria-busy");
  }
}

// Fenced code stands out; the rest is the model's own text, as it wrote it.
function blocks(text) {
  return text.split(/^```.*$/m).map((part, index) =>
    index % 2 ? h("pre", { class: "code", tabindex: 0 }, part.replace(/^\n/, "")) : h("span", {}, part));
}
