// The functions that an answer may call, as JSON.

import { h, stored } from "./dom.js";
import { parseJson, showJsonState } from "./settings.js";

const store = stored(localStorage, "sglang.tools");

const EXAMPLE = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather of a city, now.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

export class Tools {
  constructor(panel) {
    const { text, choice } = store.read({ text: "", choice: "" });
    this.note = h("p", { class: "note", id: "tools-note" });
    this.field = h("textarea", { id: "tools-json", rows: 14, class: "mono", spellcheck: "false", placeholder: "[ … ]", "aria-describedby": "tools-note" });
    this.choice = h("select", { id: "tool-choice" }, ["", "auto", "none", "required"].map((value) => h("option", { value }, value || "default")));
    this.field.value = text;
    this.choice.value = choice;
    this.field.addEventListener("input", () => this.#changed());
    this.choice.addEventListener("change", () => this.#changed());
    const example = h("button", { type: "button", class: "quiet small", id: "tools-example", onclick: () => this.#showExample() }, "Insert an example");
    panel.append(
      h("div", { class: "field" },
        h("div", { class: "section-head" }, h("label", { for: "tools-json" }, "Functions"), example), this.field, this.note),
      h("div", { class: "field" }, h("label", { for: "tool-choice" }, "Choice"), this.choice),
      h("p", { class: "muted" }, "A call is shown in the chat with a box for its result; the page runs nothing itself."),
    );
    this.#changed();
  }

  /** @throws if the text is not JSON. */
  body() {
    if (!this.field.value.trim()) return {};
    const body = { tools: asList(parseJson(this.field.value, "Functions")) };
    if (this.choice.value) body.tool_choice = this.choice.value;
    return body;
  }

  #showExample() {
    this.field.value = JSON.stringify(EXAMPLE, null, 2);
    this.#changed();
  }

  #changed() {
    store.write({ text: this.field.value, choice: this.choice.value });
    showJsonState(this.field, this.note, (tools) => {
      const names = asList(tools).map((tool) => tool?.function?.name ?? "a function without a name");
      return names.length ? names.join(", ") : "none";
    });
  }
}

const asList = (value) => (Array.isArray(value) ? value : [value]);
