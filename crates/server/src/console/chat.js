// The conversation: what was said, what is being answered, and what people do about it.

import { announce, byId, h, stored } from "./dom.js";
import { ServerError, streamChat } from "./client.js";
import { viewOf } from "./messages.js";
import { Timing } from "./timing.js";

const store = stored(sessionStorage, "sglang.chat");
/** Pixels from the end within which the view follows the answer. */
const NEAR_END = 80;

export class Chat {
  #messages = [];
  #views = new Map();
  #abort = null;

  /** `request()` gives the body without messages; `onTiming` hears of each piece. */
  constructor({ request, onTiming }) {
    this.request = request;
    this.onTiming = onTiming;
    this.list = byId("messages");
    this.scroller = byId("scroller");
    this.scroller.addEventListener("scroll", () => this.#showEndButton());
    byId("to-end").addEventListener("click", () => this.#scrollToEnd());
    for (const message of store.read([])) this.#add(message);
    this.#changed();
    this.#scrollToEnd();
  }

  get isBusy() {
    return this.#abort !== null;
  }

  clear() {
    this.stop();
    this.#truncate(0);
    this.#changed();
    announce("New chat");
  }

  stop() {
    this.#abort?.abort();
  }

  /** Says `text` and has it answered. */
  send(text) {
    this.stop();
    // Calls that nobody answered would leave the conversation without an end.
    const last = this.#messages.at(-1);
    if (last?.awaitsResults) this.#closeCalls(last, last.toolCalls.map(() => ""));
    this.#add({ role: "user", content: text });
    return this.#answer();
  }

  /** Has the last answer made again. */
  regenerateLast() {
    const last = this.#messages.findLast((message) => message.role === "assistant");
    if (last) this.regenerate(last);
  }

  /** Opens the last thing said for editing. */
  editLast() {
    const last = this.#messages.findLast((message) => message.role === "user");
    if (last) this.#views.get(last).edit();
  }

  regenerate(message) {
    this.stop();
    this.#truncate(this.#messages.indexOf(message));
    return this.#answer();
  }

  edit(message, content) {
    this.stop();
    this.#truncate(this.#messages.indexOf(message));
    return this.send(content);
  }

  answerCalls(message, results) {
    this.#closeCalls(message, results);
    return this.#answer();
  }

  #closeCalls(message, results) {
    message.awaitsResults = false;
    this.#views.get(message).update();
    message.toolCalls.forEach((call, i) => this.#add({ role: "tool", content: results[i], callId: call.id }));
  }

  async #answer() {
    let body;
    try {
      body = { ...this.request(), messages: this.#forServer() };
    } catch (error) {
      this.#add({ ...newAnswer(), isLive: false, error: { status: 0, message: error.message } });
      this.#changed();
      return;
    }
    body.messages = [...(body.system ? [{ role: "system", content: body.system }] : []), ...body.messages];
    delete body.system;
    const message = newAnswer();
    const abort = new AbortController();
    this.#abort = abort;
    this.#add(message);
    this.#changed();
    this.#scrollToEnd();
    announce("Answering");
    const timing = new Timing();
    try {
      for await (const event of streamChat(body, abort.signal)) this.#take(message, event, timing);
    } catch (error) {
      if (error.name === "AbortError") message.finish = "stopped";
      else message.error = { status: error.status ?? 0, message: error instanceof ServerError ? error.message : String(error) };
    }
    this.#end(message, timing, abort);
  }

  #take(message, event, timing) {
    if (event.usage) message.usage = event.usage;
    const [choice] = event.choices;
    if (!choice) return;
    const { delta } = choice;
    message.reasoning += delta.reasoning_content ?? "";
    message.content += delta.content ?? "";
    for (const piece of delta.tool_calls ?? []) takeCall(message.toolCalls, piece);
    if (choice.finish_reason) message.finish = choice.finish_reason;
    if (delta.content || delta.reasoning_content || delta.tool_calls || event.usage?.completion_tokens) {
      timing.piece(event.usage?.completion_tokens);
    }
    this.#showSoon(message, timing);
  }

  /** Once a frame, however many pieces come. */
  #showSoon(message, timing) {
    if (message.isShownSoon) return;
    message.isShownSoon = true;
    requestAnimationFrame(() => {
      message.isShownSoon = false;
      if (!message.isLive) return;
      const follows = this.#isAtEnd();
      this.#views.get(message)?.update();
      if (follows) this.#scrollToEnd();
      this.onTiming(timing.summary());
    });
  }

  #end(message, timing, abort) {
    const follows = this.#isAtEnd();
    message.isLive = false;
    message.timing = timing.summary();
    message.awaitsResults = message.toolCalls.length > 0 && message.finish === "tool_calls";
    if (message.timing.tokens) this.onTiming(message.timing);
    this.#views.get(message)?.update();
    if (this.#abort === abort) this.#abort = null;
    this.#changed();
    if (follows) this.#scrollToEnd();
    announce(message.error ? "The answer failed" : `Answer complete, ${message.timing.tokens} tokens`);
    if (message.awaitsResults) this.#views.get(message)?.element.querySelector("textarea")?.focus();
  }

  #add(message) {
    const view = viewOf(message, this);
    this.#messages.push(message);
    this.#views.set(message, view);
    this.list.append(view.element);
  }

  #truncate(length) {
    for (const message of this.#messages.splice(length)) {
      this.#views.get(message).element.remove();
      this.#views.delete(message);
    }
  }

  #changed() {
    byId("welcome").hidden = this.#messages.length > 0;
    byId("stop").hidden = !this.isBusy;
    byId("send").hidden = this.isBusy;
    store.write(this.#messages.map((message) => (message.isLive ? { ...message, isLive: false, finish: "stopped" } : message)));
    this.#showEndButton();
  }

  /** As the API has them; answers without anything in them are left out. */
  #forServer() {
    return this.#messages.flatMap((message) => {
      if (message.role === "user") return [{ role: "user", content: message.content }];
      if (message.role === "tool") return [{ role: "tool", content: message.content, tool_call_id: message.callId }];
      if (!message.content && !message.toolCalls.length) return [];
      const calls = message.toolCalls.map((call) => (
        { id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
      return [{
        role: "assistant",
        content: message.content,
        ...(message.reasoning && { reasoning_content: message.reasoning }),
        ...(calls.length && { tool_calls: calls }),
      }];
    });
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  #scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #showEndButton() {
    byId("to-end").hidden = this.#isAtEnd();
  }
}

function newAnswer() {
  return { role: "assistant", content: "", reasoning: "", toolCalls: [], isLive: true, awaitsResults: false };
}

/** Names come whole, arguments in pieces. */
function takeCall(calls, { index = 0, id, function: piece }) {
  calls[index] ??= { id: "", name: "", arguments: "" };
  const call = calls[index];
  if (id) call.id = id;
  if (piece?.name) call.name = piece.name;
  call.arguments += piece?.arguments ?? "";
}

/** What can be asked first, for those who only want to see it run. */
export function suggestions(ask) {
  const texts = [
    "Explain how a radix tree shares prefixes between requests.",
    "Write a binary search in Rust, with a test.",
    "Compare three sorting algorithms in a table.",
  ];
  return texts.map((text) => h("li", {}, h("button", { type: "button", onclick: () => ask(text) }, text)));
}
