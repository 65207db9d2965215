// How messages look. A view shows its message and is told to `update` when that has changed.

import { copyButton, fill, h } from "./dom.js";
import { MarkdownView, code } from "./markdown.js";
import { duration, figure } from "./timing.js";

/** A view for a message of any role; `actions` are what its buttons do. */
export function viewOf(message, actions) {
  switch (message.role) {
    case "user":
      return new UserView(message, actions);
    case "tool":
      return new ToolResultView(message);
    default:
      return new AnswerView(message, actions);
  }
}

class UserView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = h("li", { class: "message user", "aria-label": "You" });
    this.#show();
  }

  update() {}

  #show() {
    const edit = h("button", { type: "button", class: "quiet small", onclick: () => this.edit() }, "Edit");
    fill(this.element,
      h("div", { class: "bubble" }, this.message.content),
      h("div", { class: "message-actions" }, copyButton(() => this.message.content), edit));
  }

  edit() {
    const field = h("textarea", { "aria-label": "Edit the message", rows: "3" });
    field.value = this.message.content;
    const close = () => {
      this.#show();
      this.element.querySelector(".message-actions button:last-child").focus();
    };
    const form = h("form", { class: "edit" }, field, h("div", { class: "dialog-row" },
      h("button", { type: "button", class: "quiet", onclick: close }, "Cancel"),
      h("button", { type: "submit", class: "primary" }, "Send")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) this.actions.edit(this.message, field.value);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && event.target === field && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    });
    fill(this.element, form);
    field.focus();
  }
}

class ToolResultView {
  constructor(message) {
    this.element = h("li", { class: "message tool-result", "aria-label": "Tool result" },
      h("span", { class: "call-label" }, "Result"), h("pre", {}, message.content));
  }

  update() {}
}

class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.reasoning = h("div", { class: "markdown" });
    this.reasoningTitle = h("summary", {}, "Thinking");
    this.fold = h("details", { class: "reasoning", hidden: true }, this.reasoningTitle, this.reasoning);
    this.content = h("div", { class: "markdown" });
    this.calls = h("div", { class: "calls" });
    this.footer = h("footer", { class: "message-footer" });
    this.element = h("li", { class: "message answer", "aria-label": "Answer" },
      this.fold, this.content, this.calls, this.footer);
    this.reasoningView = new MarkdownView(this.reasoning);
    this.contentView = new MarkdownView(this.content);
    this.update();
  }

  update() {
    const { message } = this;
    this.element.setAttribute("aria-busy", String(message.isLive));
    this.element.classList.toggle("is-live", message.isLive);
    this.fold.hidden = !message.reasoning;
    const isThinking = message.isLive && !message.content && !message.toolCalls.length;
    this.reasoningTitle.textContent = isThinking ? "Thinking…" : "Thoughts";
    this.reasoningView.update(message.reasoning);
    this.contentView.update(message.content);
    if (message.isLive) this.#showCalls(false);
    else this.#showEnd();
  }

  #showEnd() {
    const { message, actions } = this;
    this.#showCalls(message.awaitsResults);
    fill(this.footer,
      message.error && h("p", { class: "error", role: "alert" },
        h("strong", {}, message.error.status ? `Error ${message.error.status}` : "Error"), " ", message.error.message),
      h("div", { class: "message-actions" },
        message.content && copyButton(() => message.content),
        h("button", { type: "button", class: "quiet small", onclick: () => actions.regenerate(message) }, "Regenerate"),
        h("p", { class: "muted timing" }, facts(message))),
    );
  }

  #showCalls(asksForResults) {
    const { toolCalls } = this.message;
    if (!toolCalls.length) return;
    const cards = toolCalls.map((call) => callCard(call, this.message.isLive));
    if (!asksForResults) {
      fill(this.calls, cards);
      return;
    }
    const fields = toolCalls.map((call) => h("textarea", {
      rows: "2", class: "mono", spellcheck: "false", placeholder: "Result, as text or JSON",
      "aria-label": `Result of ${call.name}`,
    }));
    const form = h("form", { class: "results" }, cards.map((card, i) => [card, fields[i]]),
      h("div", { class: "dialog-row" }, h("button", { type: "submit", class: "primary" },
        toolCalls.length > 1 ? "Send results" : "Send result")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.actions.answerCalls(this.message, fields.map((field) => field.value));
    });
    fill(this.calls, form);
  }
}

function callCard(call, isLive) {
  return h("section", { class: "call", "aria-label": `Tool call ${call.name}` },
    h("div", { class: "call-head" }, h("span", { class: "call-label" }, "Call"), h("code", {}, call.name)),
    isLive ? h("pre", { class: "mono" }, call.arguments) : code(pretty(call.arguments), "json"));
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

const ENDINGS = { stop: null, length: "cut at the limit", tool_calls: null, stopped: "stopped", abort: "aborted" };

/** One line: how fast, how many, why it ended. */
function facts({ timing, usage, finish }) {
  if (!timing?.tokens) return "";
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  return [
    `first token ${duration(timing.ttft)}`,
    timing.perToken === null ? null : `${duration(timing.perToken)} a token`,
    timing.throughput === null ? null : `${figure(timing.throughput)} tokens/s`,
    usage ? `${figure(usage.prompt_tokens)} in${cached ? `, ${figure(cached)} cached` : ""}` : null,
    `${figure(timing.tokens)} out`,
    ENDINGS[finish] === undefined ? finish : ENDINGS[finish],
  ].filter(Boolean).join(" · ");
}
