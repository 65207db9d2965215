// Keys. All but Escape take Alt (Option), so that none is in the way of typing.

import { byId, h } from "./dom.js";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/** `table` maps a letter to `[what it does, action]`; `stop` is Escape's. */
export function bindShortcuts(table, stop) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      stop();
      return;
    }
    // Option changes what a key types on a Mac, not which key it is.
    const entry = table[event.code.replace("Key", "").replace("Slash", "/")];
    if (!entry || !event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    entry[1]();
  });
  const keys = Object.entries(table).map(([key, [text]]) => [`${IS_MAC ? "⌥" : "Alt"} ${key}`, text]);
  const all = [["Enter", "Send"], ["Shift Enter", "New line"], ["Esc", "Stop the answer"], ["↑", "Edit the last message, from an empty box"], ...keys];
  byId("shortcuts").append(...all.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text))));
}

/** Tabs that arrow keys go through. */
export function bindTabs(list) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.indexOf(document.activeElement);
    const next = Math.abs(step) > 1 ? (step > 0 ? tabs.length - 1 : 0) : (at + step + tabs.length) % tabs.length;
    select(tabs[next]);
    tabs[next].focus();
  });
}
