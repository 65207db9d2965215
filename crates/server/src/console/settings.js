// The form for sampling. A field left empty is not sent: the server's default counts.

import { h, stored } from "./dom.js";

const NUMBERS = [
  { name: "temperature", label: "Temperature", max: 2, step: 0.05, unset: 1, hint: "0 is greedy" },
  { name: "top_p", label: "Top p", max: 1, step: 0.01, unset: 1 },
  { name: "min_p", label: "Min p", max: 1, step: 0.01, unset: 0 },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, unset: 0 },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, unset: 0 },
  { name: "repetition_penalty", label: "Repetition penalty", max: 2, step: 0.05, unset: 1 },
];

const INTEGERS = [
  { name: "top_k", label: "Top k", hint: "all", min: -1 },
  { name: "max_completion_tokens", label: "Max tokens", hint: "context", min: 1 },
  { name: "seed", label: "Seed", hint: "random" },
];

const CHOICES = [
  { name: "thinking", label: "Thinking", values: ["", "on", "off"] },
  { name: "reasoning_effort", label: "Effort", values: ["", "low", "medium", "high"] },
];

const store = stored(localStorage, "sglang.settings");

export class Settings {
  #values = store.read({});
  #shown = [];

  constructor(sampling, system) {
    sampling.append(
      ...NUMBERS.map((field) => this.#number(field)),
      h("div", { class: "columns" }, INTEGERS.map((field) => this.#integer(field))),
      h("div", { class: "columns two" }, CHOICES.map((field) => this.#choice(field))),
      this.#text({ name: "stop", label: "Stop", hint: "One string a line", rows: 2 }),
      this.#text({ name: "json_schema", label: "JSON schema", hint: "{ \"type\": \"object\", … }", rows: 3, isJson: true }),
      h("div", { class: "dialog-row" }, h("button", { type: "button", class: "quiet", id: "reset", onclick: () => this.#reset() }, "Reset to the server's defaults")),
    );
    system.append(this.#text({ name: "system", label: "System prompt", hint: "You are …", rows: 10 }));
    this.#show();
  }

  /** The part of a request's body that is set here; `system` is a message yet to be made. */
  body() {
    const { stop, json_schema: schema, thinking, ...rest } = this.#values;
    const body = { ...rest };
    const stops = (stop ?? "").split("\n").filter(Boolean);
    if (stops.length) body.stop = stops;
    if (thinking) {
      const isOn = thinking === "on";
      // Templates have one name or the other for it.
      body.chat_template_kwargs = { enable_thinking: isOn, thinking: isOn };
    }
    if (schema) {
      body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: parseJson(schema, "JSON schema") } };
    }
    return body;
  }

  #set(name, value) {
    if (value === "" || value === null) delete this.#values[name];
    else this.#values[name] = value;
    store.write(this.#values);
  }

  #reset() {
    const { system } = this.#values;
    this.#values = system ? { system } : {};
    store.write(this.#values);
    this.#show();
  }

  #show() {
    for (const show of this.#shown) show();
  }

  #number({ name, label, min = 0, max, step, unset, hint }) {
    const id = `set-${name}`;
    const number = h("input", { type: "number", id, min, max, step: "any", placeholder: String(unset), inputmode: "decimal", autocomplete: "off" });
    const slider = h("input", { type: "range", min, max, step, "aria-label": label, tabindex: "-1" });
    this.#shown.push(() => {
      number.value = this.#values[name] ?? "";
      slider.value = this.#values[name] ?? unset;
      slider.classList.toggle("is-unset", number.value === "");
      slider.setAttribute("aria-valuetext", number.value || `default, ${unset}`);
    });
    const take = (text) => {
      this.#set(name, text === "" ? null : Number(text));
      this.#show();
    };
    number.addEventListener("change", () => take(number.value));
    slider.addEventListener("input", () => take(slider.value));
    return h("div", { class: "slider-row" }, h("label", { for: id }, label, hint && h("span", { class: "muted" }, ` ${hint}`)), number, slider);
  }

  #integer({ name, label, hint, min }) {
    const id = `set-${name}`;
    const field = h("input", { type: "number", id, min, step: 1, placeholder: hint, autocomplete: "off" });
    this.#shown.push(() => { field.value = this.#values[name] ?? ""; });
    field.addEventListener("change", () => this.#set(name, field.value === "" ? null : Number(field.value)));
    return h("div", { class: "field" }, h("label", { for: id }, label), field);
  }

  #choice({ name, label, values }) {
    const id = `set-${name}`;
    const field = h("select", { id }, values.map((value) => h("option", { value }, value || "default")));
    this.#shown.push(() => { field.value = this.#values[name] ?? ""; });
    field.addEventListener("change", () => this.#set(name, field.value));
    return h("div", { class: "field" }, h("label", { for: id }, label), field);
  }

  #text({ name, label, hint, rows, isJson = false }) {
    const id = `set-${name}`;
    const note = h("p", { class: "note", id: `${id}-note` });
    const field = h("textarea", { id, rows, placeholder: hint, spellcheck: isJson ? "false" : null, class: isJson ? "mono" : null, "aria-describedby": note.id });
    const check = () => { if (isJson) showJsonState(field, note); };
    this.#shown.push(() => {
      field.value = this.#values[name] ?? "";
      check();
    });
    field.addEventListener("input", () => {
      this.#set(name, field.value);
      check();
    });
    return h("div", { class: "field" }, h("label", { for: id }, label), field, note);
  }
}

/** Says under a field whether its text is JSON. */
export function showJsonState(field, note, describe = () => "") {
  let text = "";
  let isBad = false;
  if (field.value.trim()) {
    try {
      text = describe(JSON.parse(field.value));
    } catch (error) {
      isBad = true;
      text = error.message;
    }
  }
  field.setAttribute("aria-invalid", String(isBad));
  note.textContent = text;
  note.classList.toggle("error-text", isBad);
}

/** @throws if `text` is not JSON, with the field's name. */
export function parseJson(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is not JSON: ${error.message}`);
  }
}
