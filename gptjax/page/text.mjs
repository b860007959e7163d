// The text that Look, Follow and Parts share: its tokens, and the chosen one.

import { button, el, field, visible } from "./dom.mjs";

// More tokens than this would be too small in a matrix, and slow on a phone.
const MOST = 64;

/** A text of at most block_size tokens, the chosen token, and listeners for changes. */
export class SharedText {
  constructor(tokenizer, blockSize, ids) {
    this.tokenizer = tokenizer;
    this.most = Math.min(blockSize, MOST);
    this.listeners = new Set();
    this.set(ids);
  }

  set(ids) {
    const kept = ids.slice(-this.most);
    this.ids = kept.length ? kept : [this.tokenizer.startId];
    this.position = Math.max(0, this.ids.length - 2); // the next token is known there
    this.pieces = this.ids.map((id) => this.tokenizer.piece(id));
    for (const listener of this.listeners) listener("text");
  }

  choose(position) {
    const clipped = Math.max(0, Math.min(this.ids.length - 1, position));
    if (clipped === this.position) return;
    this.position = clipped;
    for (const listener of this.listeners) listener("position");
  }
}

/** Elements that show what is wrong with a typed text; null if nothing is. */
export function complaint(tokenizer, text) {
  const { unknown } = tokenizer.encode(text);
  if (!unknown.length) return null;
  const distinct = [...new Set(unknown)];
  const marked = el("p", { class: "marked" });
  for (const character of text) {
    marked.append(
      unknown.includes(character) ? el("mark", { text: visible(character) }) : character,
    );
  }
  const what = distinct.slice(0, 8).map((character) => `“${visible(character)}”`);
  const more = distinct.length > 8 ? " and others" : "";
  return el(
    "div",
    { class: "complaint", role: "alert" },
    el("p", {
      text: `This model does not know ${what.join(", ")}${more}, which its training text does not contain. Change the marked characters.`,
    }),
    marked,
  );
}

/** A row of tokens to choose from, with a field to change the text. */
export function textPicker(shared, written) {
  const row = el("div", { class: "tokens", role: "listbox", tabindex: 0 });
  row.setAttribute("aria-label", "Tokens of the text: choose one with the arrow keys");
  const input = el("textarea", { rows: 2, spellcheck: "false", class: "edit" });
  const wrong = el("div");
  const heat = { values: null };

  function use() {
    const problem = complaint(shared.tokenizer, input.value);
    wrong.replaceChildren(...(problem ? [problem] : []));
    if (!problem && input.value) shared.set(shared.tokenizer.encode(input.value).ids);
  }

  function render() {
    row.replaceChildren(
      ...shared.pieces.map((piece, t) => {
        const chosen = t === shared.position;
        const item = el("span", {
          ...{
            role: "option",
            id: `${row.dataset.name}-${t}`,
            class: "token",
            text: visible(piece),
          },
          "data-at": t,
          "aria-selected": String(chosen),
        });
        if (heat.values) item.style.setProperty("--heat", heat.values[t] ?? 0);
        return item;
      }),
    );
    row.setAttribute("aria-activedescendant", `${row.dataset.name}-${shared.position}`);
    for (const item of row.children)
      if (shared.pieces[item.dataset.at]?.endsWith("\n")) item.after(el("br"));
  }

  const at = (event) => event.target.closest?.(".token")?.dataset.at;
  row.addEventListener(
    "pointerover",
    (event) => at(event) !== undefined && shared.choose(Number(at(event))),
  );
  row.addEventListener(
    "click",
    (event) => at(event) !== undefined && shared.choose(Number(at(event))),
  );
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8 }[event.key];
    const ends = { Home: 0, End: shared.ids.length - 1 }[event.key];
    if (step === undefined && ends === undefined) return;
    event.preventDefault();
    shared.choose(ends ?? shared.position + step);
  });
  input.addEventListener("input", use);
  row.dataset.name = `token-${shared.listeners.size}`;
  shared.listeners.add((what) => {
    if (what === "text") {
      heat.values = null;
      if (document.activeElement !== input) input.value = shared.tokenizer.decode(shared.ids);
    }
    render();
  });
  input.value = shared.tokenizer.decode(shared.ids);
  render();
  const take = button("Use the end of the written text", () => {
    shared.set(written());
    input.value = shared.tokenizer.decode(shared.ids);
    wrong.replaceChildren();
  });
  const element = el(
    "section",
    { class: "picker" },
    row,
    el(
      "details",
      {},
      el("summary", { text: "Change the text" }),
      field("Text", input),
      wrong,
      take,
    ),
  );
  /** Shades the tokens by numbers from 0 to 1. */
  const shade = (values) => {
    heat.values = values;
    render();
  };
  return { element, shade };
}
