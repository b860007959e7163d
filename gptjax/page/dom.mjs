// Makes elements from plain values. Text always becomes text nodes, never markup.

/** Makes an element. Properties are `text`, `on...` for listeners, and attributes. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A labelled control. */
export const field = (label, control, hint) =>
  el("label", { class: "field", title: hint }, el("span", { text: label }), control);

/** A button. */
export const button = (text, onclick, properties = {}) =>
  el("button", { type: "button", text, onclick, ...properties });

export const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
export const whole = (value) => value.toLocaleString("en-US");
export const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

/** A token's text, with visible signs for invisible characters. */
export function visible(piece) {
  if (piece === "") return "∅";
  return [...piece].map(visibleCharacter).join("");
}

function visibleCharacter(character) {
  if (character === " ") return "␣";
  if (character === "\n") return "↵";
  if (character === "\t") return "⇥";
  // Control characters, and those that change the direction of the text around them.
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(character)) {
    return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  }
  return character;
}

/** Moves the focus within a row of buttons by the arrow keys, Home and End. */
export function arrowKeys(container, selector) {
  container.addEventListener("keydown", (event) => {
    const items = [...container.querySelectorAll(selector)];
    const at = items.indexOf(document.activeElement);
    if (at < 0) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const place = { Home: 0, End: items.length - 1 }[event.key] ?? at + (step ?? 0);
    if (step === undefined && place === at) return;
    event.preventDefault();
    const target = items[(place + items.length) % items.length];
    target.focus();
    if (target.getAttribute("role") === "tab") target.click();
  });
}
