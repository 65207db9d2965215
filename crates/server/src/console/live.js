// What the server does now: asked once a second, and only while somebody can see it.

import { byId, fill, h } from "./dom.js";
import { getJson } from "./client.js";
import { Plot } from "./plot.js";
import { duration, figure } from "./timing.js";

const PERIOD_MS = 1000;
const CAPACITY = 120;
/** Samples over which the share of cached tokens is taken. */
const HIT_WINDOW = 15;

const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)}%`;

export class Live {
  #isLocked = false;
  #isKnown = false;
  #before = null;
  #counts = [];
  #timer = null;

  /** `isShown` tells whether the plots can be seen; `onInfo` hears each answer of the server. */
  constructor({ isShown, onInfo }) {
    this.isShown = isShown;
    this.onInfo = onInfo;
    const plot = (title, names, format, top) =>
      new Plot({ title, series: names.map((name) => ({ name })), format, top, capacity: CAPACITY });
    this.throughput = plot("Tokens a second", ["out", "in"], figure);
    this.requests = plot("Requests", ["running", "waiting"], figure);
    this.hits = plot("Cache hits", [""], percent, 1);
    this.usage = plot("K/V use", [""], percent, 1);
    byId("plots").append(...[this.throughput, this.requests, this.hits, this.usage].map((p) => p.element));
    this.showTiming({});
    document.addEventListener("visibilitychange", () => this.wake());
    document.addEventListener("key", () => {
      this.#isLocked = false;
      this.wake();
    });
  }

  /** Goes on if it is seen; a poll that finds itself unseen ends. */
  wake() {
    if (this.#timer === null) this.#poll();
  }

  async #poll() {
    const isSeen = document.visibilityState === "visible" && (this.isShown() || !this.#isKnown);
    if (this.#isLocked || !isSeen) {
      this.#timer = null;
      this.#before = null;
      return;
    }
    this.#timer = 0;
    try {
      const info = await getJson("server_info", { asks: !this.#isKnown });
      this.#isKnown = true;
      this.#take(info);
      this.#note(info.status === "ready" ? "ok" : "busy", `Server ${info.status}`);
      this.onInfo(info);
    } catch (error) {
      this.#before = null;
      this.#isLocked = error.status === 401;
      if (!this.#isKnown) byId("model").textContent = this.#isLocked ? "Locked" : "No answer";
      this.#note("bad", error.message);
    }
    this.#timer = setTimeout(() => this.#poll(), PERIOD_MS);
  }

  #note(state, text) {
    const dot = byId("status");
    dot.className = `dot ${state}`;
    dot.setAttribute("aria-label", text);
    dot.title = text;
  }

  #take(info) {
    const [state] = info.internal_states;
    if (!state) return;
    const now = { at: performance.now(), out: state.generation_tokens, in: state.prompt_tokens, cached: state.cached_tokens };
    const before = this.#before;
    this.#before = now;
    const seconds = before && (now.at - before.at) / 1000;
    const rate = (name) => (before ? Math.max(0, now[name] - before[name]) / seconds : null);
    this.throughput.push([rate("out"), rate("in")]);
    this.requests.push([state.num_running_reqs, state.num_waiting_reqs]);
    this.hits.push([this.#hitRate(now)]);
    this.usage.push([state.token_usage]);
  }

  /** Of the prompts of late; of all there were while there is none. */
  #hitRate(now) {
    this.#counts.push(now);
    if (this.#counts.length > HIT_WINDOW) this.#counts.shift();
    const from = this.#counts[0];
    const share = (cached, all) => (all > 0 ? Math.min(1, cached / all) : null);
    return share(now.cached - from.cached, now.in - from.in) ?? share(now.cached, now.in);
  }

  /** Figures of the chat's latest answer. */
  showTiming({ ttft, perToken, p95, throughput }) {
    const entries = [
      ["First token", duration(ttft)],
      ["A token", duration(perToken)],
      ["A token, p95", duration(p95)],
      ["Tokens/s", figure(throughput)],
    ];
    fill(byId("answer-figures"), entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}
