// The admin API and the models, asked with the key of this tab.

const STORED = "appliance-key";
const OWN = { "x-appliance-page": "1" }; // no other origin's script can send it, which is what stands in for a key on loopback

export class Refused extends Error {
  constructor(status, error) {
    super(error.hint ? `${error.message}; ${error.hint}` : error.message);
    this.status = status;
    this.code = error.code ?? error.type ?? "";
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (value) => sessionStorage.setItem(STORED, value),
  forget: () => sessionStorage.removeItem(STORED),
};

function credentials(other) {
  const given = other || key.get();
  return given ? { ...OWN, authorization: `Bearer ${given}` } : OWN;
}

// The response, whose body is still to be read. Throws Refused, and TypeError where nobody answers.
export async function ask(method, path, { body, signal, as, headers } = {}) {
  const response = await fetch(path, {
    method,
    signal,
    body: body && JSON.stringify(body),
    headers: { ...credentials(as), ...(body && { "content-type": "application/json" }), ...headers },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
  });
  if (response.ok) return response;
  const text = await response.text();
  let error = { message: `${response.status} ${text.slice(0, 300)}` };
  try {
    error = JSON.parse(text).error ?? error;
  } catch {
    // Not JSON: whatever was said is the message.
  }
  throw new Refused(response.status, error);
}

export const json = async (method, path, options) => (await ask(method, path, options)).json();
export const text = async (path, options) => (await ask("GET", path, options)).text();

// Text as it arrives, cut at `separator`; what has no end yet waits for it.
export async function* pieces(response, separator) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const whole = (rest + decoder.decode(value, { stream: true })).split(separator);
      rest = whole.pop();
      if (whole.length) yield whole;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Server-sent events. EventSource could not send a key.
export async function* events(response) {
  for await (const blocks of pieces(response, "\n\n")) {
    for (const block of blocks) {
      const event = { id: "", event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      yield event;
    }
  }
}
