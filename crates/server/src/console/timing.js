// When the pieces of an answer came.

const KEPT_GAPS = 240;

/** Latency of one answer, by the clock of the page: the network is in it. */
export class Timing {
  #started = performance.now();
  #first = null;
  #last = null;
  #tokens = 0;
  #gaps = [];

  /** A piece has come; `tokens` is the count so far, if the server tells it. */
  piece(tokens) {
    const now = performance.now();
    const total = tokens ?? this.#tokens + 1;
    const fresh = total - this.#tokens;
    if (fresh <= 0) return;
    if (this.#first === null) this.#first = now;
    else this.#gaps.push((now - this.#last) / fresh);
    if (this.#gaps.length > KEPT_GAPS) this.#gaps.shift();
    this.#last = now;
    this.#tokens = total;
  }

  /** Milliseconds, and tokens a second; null where nothing is known yet. */
  summary() {
    const after = this.#tokens - 1;
    const span = this.#last - this.#first;
    return {
      ttft: this.#first === null ? null : this.#first - this.#started,
      perToken: after > 0 ? span / after : null,
      p95: quantile(this.#gaps, 0.95),
      throughput: after > 0 && span > 0 ? (1000 * after) / span : null,
      tokens: this.#tokens,
    };
  }
}

function quantile(values, share) {
  if (!values.length) return null;
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** `12.3 ms` or `1.24 s`. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** A number in at most three places, with thousands apart. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toFixed(1);
}
