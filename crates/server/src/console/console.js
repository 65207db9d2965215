// The page as a whole: its parts, and what joins them.

import { Chat, suggestions } from "./chat.js";
import { announce, byId, stored } from "./dom.js";
import { Live } from "./live.js";
import { Settings } from "./settings.js";
import { bindShortcuts, bindTabs } from "./shortcuts.js";
import { Tools } from "./tools.js";

const look = stored(localStorage, "sglang.look");
const isNarrow = matchMedia("(max-width: 60rem)");
const prompt = byId("prompt");
const panel = byId("panel");
let model = null;

const settings = new Settings(byId("sampling"), byId("system"));
const tools = new Tools(byId("tools"));
const live = new Live({ isShown: () => !panel.inert, onInfo: showModel });
const chat = new Chat({
  request: () => ({
    model: model ?? "default",
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    ...settings.body(),
    ...tools.body(),
  }),
  onTiming: (timing) => live.showTiming(timing),
});

function ask(text) {
  prompt.value = "";
  fitPrompt();
  prompt.focus();
  chat.send(text);
}

function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function bindComposer() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (prompt.value.trim()) ask(prompt.value);
  });
  prompt.addEventListener("input", fitPrompt);
  prompt.addEventListener("keydown", (event) => {
    // `isComposing`: Enter ends the choice of a character there.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("composer").requestSubmit();
    }
    if (event.key === "ArrowUp" && !prompt.value) {
      event.preventDefault();
      chat.editLast();
    }
  });
  for (const kind of ["paste", "drop"]) {
    prompt.addEventListener(kind, (event) => {
      const { files } = event.clipboardData ?? event.dataTransfer;
      if (!files.length) return;
      event.preventDefault();
      byId("composer-note").textContent = "Only text can be sent from this page.";
      announce("Only text can be sent from this page.");
    });
  }
  byId("stop").addEventListener("click", () => {
    chat.stop();
    prompt.focus();
  });
  byId("suggestions").append(...suggestions(ask));
}

function showPanel(isShown) {
  panel.inert = !isShown;
  document.body.classList.toggle("without-panel", !isShown);
  byId("toggle-panel").setAttribute("aria-expanded", String(isShown));
  live.wake();
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = { auto: "Auto theme", light: "Light theme", dark: "Dark theme" }[theme];
  look.write({ theme });
}

function nextTheme() {
  const themes = ["auto", "light", "dark"];
  showTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
}

function newChat() {
  chat.clear();
  prompt.focus();
}

function showModel(info) {
  if (model === info.served_model_name) return;
  model = info.served_model_name;
  const name = model.split("/").filter(Boolean).at(-1);
  byId("model").textContent = name;
  byId("model").title = model;
  byId("welcome-model").textContent = name;
  document.title = `${name} – sglang-mlx`;
  const facts = [info.architectures[0], `${info.context_length.toLocaleString("en")} tokens of context`, info.device_name];
  byId("welcome-facts").textContent = facts.filter(Boolean).join(" · ");
}

bindComposer();
bindTabs(document.querySelector("[role=tablist]"));
bindShortcuts({
  N: ["New chat", newChat],
  R: ["Regenerate the last answer", () => chat.regenerateLast()],
  E: ["Edit the last message", () => chat.editLast()],
  M: ["Go to the message box", () => prompt.focus()],
  P: ["Show or hide the panel", () => showPanel(panel.inert)],
  T: ["Change the theme", nextTheme],
  "/": ["This list", () => byId("help-dialog").showModal()],
}, () => {
  if (chat.isBusy) chat.stop();
  else if (isNarrow.matches) showPanel(false);
});
byId("new-chat").addEventListener("click", newChat);
byId("theme").addEventListener("click", nextTheme);
byId("help").addEventListener("click", () => byId("help-dialog").showModal());
byId("toggle-panel").addEventListener("click", () => showPanel(panel.inert));
isNarrow.addEventListener("change", () => showPanel(!isNarrow.matches));

showTheme(look.read({ theme: "auto" }).theme);
showPanel(!isNarrow.matches);
prompt.focus();
