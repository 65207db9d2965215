// Markdown as models write it, to elements. Text becomes text nodes and links only if they
// lead to http(s), so nothing in an answer can act on the page.
//
// A text is cut into blocks first. While an answer streams in, only blocks whose source has
// changed are made anew (`MarkdownView`).

import { copyButton, h } from "./dom.js";

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Shows a text that grows. */
export class MarkdownView {
  #sources = [];
  #nodes = [];

  constructor(element) {
    this.element = element;
  }

  update(text) {
    const sources = blocks(text);
    let same = 0;
    while (same < sources.length && sources[same] === this.#sources[same]) same += 1;
    this.#nodes.splice(same).forEach((node) => node.remove());
    const added = sources.slice(same).map(renderBlock);
    this.element.append(...added);
    this.#nodes.push(...added);
    this.#sources = sources;
  }
}

function blocks(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const end = blockEnd(lines, at);
    found.push(lines.slice(at, end).join("\n"));
    at = end;
  }
  return found;
}

function blockEnd(lines, start) {
  const first = lines[start];
  const fence = first.match(FENCE);
  if (fence) return fenceEnd(lines, start, fence[1]);
  if (HEADING.test(first) || RULE.test(first)) return start + 1;
  if (ITEM.test(first)) return listEnd(lines, start);
  let end = start + 1;
  const quoted = QUOTE.test(first);
  while (end < lines.length && lines[end].trim() && (quoted || !interrupts(lines[end]))) end += 1;
  return end;
}

function fenceEnd(lines, start, mark) {
  const closes = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
  const end = lines.findIndex((line, at) => at > start && closes(line));
  return end < 0 ? lines.length : end + 1;
}

const interrupts = (line) =>
  FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || QUOTE.test(line) || RULE.test(line);

function listEnd(lines, start) {
  const isOrdered = (item) => /\d/.test(item[2]);
  const head = lines[start].match(ITEM);
  const indent = head[1].length;
  for (let end = start + 1; end < lines.length; end += 1) {
    if (!lines[end].trim()) {
      const next = lines.slice(end).find((line) => line.trim());
      const item = next?.match(ITEM);
      const goesOn = /^\s{2,}/.test(next ?? "") || (item && isOrdered(item) === isOrdered(head));
      if (!goesOn) return end;
      continue;
    }
    const item = lines[end].match(ITEM);
    const isOther = item && item[1].length <= indent && isOrdered(item) !== isOrdered(head);
    const isOutside = !item && !/^\s/.test(lines[end]) && (interrupts(lines[end]) || !lines[end - 1].trim());
    if (isOther || isOutside) return end;
  }
  return lines.length;
}

function renderBlock(source) {
  const lines = source.split("\n");
  const [first] = lines;
  const fence = first.match(FENCE);
  if (fence) return codeBlock(lines, fence[1], fence[2]);
  const heading = first.match(HEADING);
  // The page's own headings are 1 and 2.
  if (heading) return h(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(heading[2]));
  if (RULE.test(first)) return h("hr");
  if (ITEM.test(first)) return list(lines);
  if (QUOTE.test(first)) {
    const inner = lines.map((line) => line.replace(QUOTE, "")).join("\n");
    return h("blockquote", {}, blocks(inner).map(renderBlock));
  }
  if (lines.length > 1 && first.includes("|") && TABLE_RULE.test(lines[1])) return table(lines);
  return h("p", {}, inline(source));
}

function codeBlock(lines, mark, language) {
  const last = lines.at(-1).trim();
  const isClosed = lines.length > 1 && last.startsWith(mark) && !last.replaceAll(mark[0], "");
  return code(lines.slice(1, isClosed ? -1 : undefined).join("\n"), language);
}

/** A block of code with its language and a button that copies it. */
export function code(text, language = "") {
  const label = language || "text";
  return h("figure", { class: "code" },
    h("figcaption", {}, h("span", {}, label), copyButton(() => text)),
    h("pre", { tabindex: "0", role: "region", "aria-label": `Code, ${label}` }, h("code", {}, text)));
}

function list(lines) {
  const head = lines[0].match(ITEM);
  const indent = head[1].length;
  const items = [];
  for (const line of lines) {
    const item = line.match(ITEM);
    if (item && item[1].length <= indent) items.push([item[3]]);
    else items.at(-1).push(line);
  }
  const isOrdered = /\d/.test(head[2]);
  const start = isOrdered ? Number.parseInt(head[2], 10) : 1;
  const rendered = items.map(([text, ...rest]) => {
    const depth = Math.min(...rest.filter((line) => line.trim()).map((line) => line.search(/\S/)));
    const inner = rest.map((line) => line.slice(Math.min(depth, line.length))).join("\n");
    return h("li", {}, inline(text), rest.length ? blocks(inner).map(renderBlock) : []);
  });
  return isOrdered ? h("ol", { start: start === 1 ? null : start }, rendered) : h("ul", {}, rendered);
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const row = (tag, line) => h("tr", {}, cells(line).map((cell) => h(tag, {}, cell)));
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", {},
    h("thead", {}, row("th", lines[0])),
    h("tbody", {}, lines.slice(2).map((line) => row("td", line)))));
}

const PAIRS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const SPECIAL = /[\\`*_~[\n]|https?:\/\//g;

/** Nodes for a run of text. */
function inline(text) {
  const nodes = [];
  let plain = 0;
  let at = 0;
  const put = (node, end) => {
    nodes.push(text.slice(plain, at), node);
    plain = at = end;
  };
  for (;;) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (!special) break;
    at = special.index;
    const found = span(text, at);
    if (found) put(found.node, found.end);
    else at += 1;
  }
  nodes.push(text.slice(plain));
  return nodes.filter((node) => node !== "");
}

function span(text, at) {
  switch (text[at]) {
    case "\\":
      return /[\\`*_{}[\]()#+\-.!~|>]/.test(text[at + 1] ?? "") && { node: text[at + 1], end: at + 2 };
    case "\n":
      return text.slice(0, at).endsWith("  ") && { node: h("br"), end: at + 1 };
    case "`":
      return codeSpan(text, at);
    case "[":
      return link(text, at);
    case "h":
      return bareLink(text, at);
    default:
      return emphasis(text, at);
  }
}

function codeSpan(text, at) {
  const [mark] = text.slice(at).match(/^`+/);
  const end = text.indexOf(mark, at + mark.length);
  if (end < 0) return null;
  const inner = text.slice(at + mark.length, end);
  return inner && { node: h("code", {}, inner.replace(/^ (.*) $/, "$1")), end: end + mark.length };
}

function emphasis(text, at) {
  const pair = PAIRS.find(([mark]) => text.startsWith(mark, at));
  if (!pair) return null;
  const [mark, tag] = pair;
  const start = at + mark.length;
  const isInWord = mark[0] === "_" && /\w/.test(text[at - 1] ?? "");
  if (isInWord || !/\S/.test(text[start] ?? "")) return null;
  let end = text.indexOf(mark, start + 1);
  // `*` closes neither after a space nor at the half of `**`.
  const closes = (place) => /\S/.test(text[place - 1])
    && (mark.length > 1 || (text[place + 1] !== mark && text[place - 1] !== mark));
  while (end >= 0 && !closes(end)) end = text.indexOf(mark, end + mark.length);
  return end < 0 ? null : { node: h(tag, {}, inline(text.slice(start, end))), end: end + mark.length };
}

function link(text, at) {
  const middle = text.indexOf("](", at);
  const end = middle < 0 ? -1 : text.indexOf(")", middle);
  if (end < 0 || text.slice(at + 1, middle).includes("[")) return null;
  return anchor(inline(text.slice(at + 1, middle)), text.slice(middle + 2, end).trim(), end + 1);
}

function bareLink(text, at) {
  const address = text.slice(at).match(/^[^\s<>"`]+/)[0].replace(/[).,;:!?'*\]]+$/, "");
  return anchor([address], address, at + address.length);
}

function anchor(children, address, end) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url?.protocol !== "https:" && url?.protocol !== "http:") return null;
  return { node: h("a", { href: url.href, rel: "noopener noreferrer", target: "_blank" }, children), end };
}
