// Elements from names, attributes and children. Text stays text: nothing here makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...shown(children));
  return element;
}

/** What of `children` there is: conditions may leave nothing in their place. */
const shown = (children) => children.flat(Infinity).filter((child) => child || child === 0);

/** Gives an element other children. */
export function fill(element, ...children) {
  element.replaceChildren(...shown(children));
}

/** An HTML element; `on*` attributes are listeners. */
export const h = (tag, attributes = {}, ...children) =>
  build(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Tells those who do not see the page. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A button that says for a moment that it has copied. */
export function copyButton(textOf) {
  const button = h("button", { type: "button", class: "quiet small" }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(textOf());
    button.textContent = copied ? "Copied" : "No clipboard";
    announce(button.textContent);
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

// Browsers give the clipboard to https and localhost only; elsewhere a selection does.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "hidden", "aria-hidden": "true" });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** What a browser keeps for this page, if it keeps anything. */
export function stored(storage, key) {
  return {
    read(fallback) {
      try {
        return JSON.parse(storage.getItem(key)) ?? fallback;
      } catch {
        return fallback;
      }
    },
    write(value) {
      try {
        storage.setItem(key, JSON.stringify(value));
      } catch {
        // Full or forbidden: the page works without.
      }
    },
  };
}
