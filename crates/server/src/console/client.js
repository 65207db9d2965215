// Requests to this server: the key, errors, and streams of events.

import { byId, stored } from "./dom.js";

const keyStore = stored(sessionStorage, "sglang.key");
let asking = null;

/** An answer other than success; `status` is 0 if there was none. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What a header can carry. */
const isKey = (text) => /^[\x21-\x7e]+$/.test(text);

function headers(extra = {}) {
  const key = keyStore.read("");
  return isKey(key) ? { ...extra, Authorization: `Bearer ${key}` } : extra;
}

byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());

/** Asks in a dialog; several requests that fail at once ask once. */
function askForKey() {
  asking ??= new Promise((resolve, reject) => {
    const dialog = byId("key-dialog");
    const field = byId("key");
    if (keyStore.read("")) byId("key-note").textContent = "The server did not take that key.";
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue !== "ok" || !field.value) {
        reject(new ServerError(401, "The server wants a key."));
        return;
      }
      if (!isKey(field.value)) {
        reject(new ServerError(401, "A key has letters, digits and signs of ASCII only."));
        return;
      }
      keyStore.write(field.value);
      document.dispatchEvent(new Event("key"));
      resolve();
    }, { once: true });
    dialog.showModal();
    field.focus();
  });
  return asking;
}

async function send(path, options, asks) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, "The server does not answer.");
    }
    if (response.status === 401 && asks) {
      await askForKey();
      continue;
    }
    if (!response.ok) throw new ServerError(response.status, await reason(response));
    return response;
  }
}

/** The message of either form that the API has for errors. */
async function reason(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    const error = body.error ?? body;
    return typeof error === "string" ? error : error.message ?? text;
  } catch {
    return text || response.statusText;
  }
}

/** A JSON answer. Without `asks` a missing key is an error like any other. */
export async function getJson(path, { asks = true, signal } = {}) {
  return (await send(path, { signal }, asks)).json();
}

/** The events of a streamed chat completion, parsed. */
export async function* streamChat(body, signal) {
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  }, true);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error || event.object === "error") {
      const error = event.error ?? event;
      throw new ServerError(Number(error.code) || 500, error.message ?? String(error));
    }
    yield event;
  }
  throw new ServerError(0, "The stream ended before the answer did.");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      if (frame.startsWith("data: ")) yield frame.slice("data: ".length);
    }
  }
}
