// Write: a prompt, and the text that the model generates after it, token by token.

import { bars } from "./charts.mjs";
import { button, el, field, number, visible } from "./dom.mjs";
import { complaint } from "./text.mjs";

// The page drops older tokens, so that its memory does not grow with the text.
const KEPT = 2000;
const OPENING = 200; // number of tokens that the page generates when it opens
const MAX_SEED = 2 ** 31 - 1;

/** The sampling settings and their controls. */
function settingsOf(vocabSize) {
  const slider = (name, value, min, max, step, hint) => {
    const input = el("input", { type: "range", min, max, step, value, "aria-label": name });
    const shown = el("output", { text: value });
    input.addEventListener("input", () => (shown.textContent = input.value));
    const control = el("span", { class: "slider" }, input, shown);
    return { element: field(name, control, hint), get: () => Number(input.value) };
  };
  const typed = (name, value, min, max, hint) => {
    const input = el("input", { type: "number", min, max, step: 1, value });
    return {
      element: field(name, input, hint),
      get: () => Math.min(max, Math.max(min, Math.round(Number(input.value)) || min)),
    };
  };
  const k = Math.min(vocabSize, 2 ** 31 - 1);
  return {
    temperature: slider("temperature", 0.8, 0, 2, 0.05, "0 always takes the likeliest token"),
    topK: typed("top-k", k, 1, k, "draw among this many of the likeliest tokens"),
    topP: slider("top-p", 1, 0.01, 1, 0.01, "draw among the likeliest with this total probability"),
    minP: slider(
      "min-p",
      0,
      0,
      1,
      0.01,
      "draw among tokens at least this fraction as likely as the likeliest",
    ),
    seed: typed("seed", 1, 0, MAX_SEED, "the same seed draws the same text"),
    count: typed("tokens", 500, 1, 100000, "number of tokens to write"),
  };
}

/** The view, and `ids()` of the written text. */
export function writeView({ service, tokenizer, prompt }) {
  const settings = settingsOf(service.stored.config.vocab_size);
  const input = el("textarea", { rows: 3, spellcheck: "false", text: prompt });
  const wrong = el("div");
  const paper = el("div", { class: "paper", role: "listbox", tabindex: 0 });
  paper.setAttribute("aria-label", "Written text: choose a token with the arrow keys");
  const panel = el("section", { class: "panel", "aria-live": "polite" });
  const speed = el("output", { class: "speed" });
  const surprise = el("input", { type: "checkbox" });
  const state = {
    textOf: tokenizer.stream(),
    tokens: [],
    dropped: 0,
    chosen: null,
    running: false,
    begun: null,
  };

  const ids = () => state.tokens.map(({ id }) => id);
  const numbers = () => ({
    temperature: settings.temperature.get(),
    topK: settings.topK.get(),
    topP: settings.topP.get(),
    minP: settings.minP.get(),
  });

  function append(told, isPrompt) {
    const parts = document.createDocumentFragment();
    for (const token of told) {
      const at = state.dropped + state.tokens.length;
      state.tokens.push(token);
      const piece = state.textOf(token.id);
      const item = el("span", {
        ...{ role: "option", class: isPrompt ? "prompt" : null, text: piece, "data-at": at },
        ...{ id: `written-${at}`, "aria-selected": "false" },
      });
      item.style.setProperty("--heat", token.loss === null ? 0 : Math.min(1, token.loss / 5));
      parts.append(item);
    }
    const isAtEnd = paper.scrollTop + paper.clientHeight > paper.scrollHeight - 40;
    paper.append(parts);
    while (state.tokens.length > KEPT) {
      state.tokens.shift();
      state.dropped++;
      paper.firstChild.remove();
    }
    if (isAtEnd) paper.scrollTop = paper.scrollHeight;
  }

  function choose(at) {
    const token = state.tokens[at - state.dropped];
    if (!token) return;
    for (const before of paper.querySelectorAll("[aria-selected=true]")) {
      before.setAttribute("aria-selected", "false");
    }
    state.chosen = at;
    const item = document.getElementById(`written-${at}`);
    item.setAttribute("aria-selected", "true");
    item.scrollIntoView({ block: "nearest" });
    paper.setAttribute("aria-activedescendant", item.id);
    panel.replaceChildren(...described(token));
  }

  function described({ id, loss, best }) {
    const piece = el("strong", { class: "piece", text: visible(tokenizer.piece(id)) });
    if (loss === null) {
      return [
        el(
          "p",
          {},
          "The first token ",
          piece,
          ": no token comes before it, so the model did not predict it.",
        ),
      ];
    }
    const share = Math.exp(-loss);
    return [
      el("h3", {}, "What the model expected here"),
      bars(best, tokenizer, { taken: id }),
      el(
        "p",
        {},
        ...["The text has ", piece, `, with probability ${number(share, share < 0.001 ? 6 : 3)}: `],
        ...["a loss of ", el("strong", { text: `${number(loss, 2)} nats` }), "."],
      ),
    ];
  }

  /** Starts over with the prompt. Returns false if it has characters without an id. */
  async function begin() {
    const problem = complaint(tokenizer, input.value);
    wrong.replaceChildren(...(problem ? [problem] : []));
    if (problem) return false;
    const typed = tokenizer.encode(input.value).ids;
    const start = typed.length ? typed : [tokenizer.startId];
    Object.assign(state, { tokens: [], dropped: 0, chosen: null, textOf: tokenizer.stream() });
    paper.replaceChildren();
    panel.replaceChildren(
      el("p", { class: "hint", text: "Choose a token to see what the model expected there." }),
    );
    const told = await service.call("begin", { ids: start, seed: settings.seed.get() });
    state.begun = input.value;
    append(told, true);
    return true;
  }

  /** Generates `count` more tokens, unless stopped. */
  async function write(count) {
    if (state.running) return;
    state.running = true;
    buttons();
    try {
      if (state.begun !== input.value && !(await begin())) return;
      const began = performance.now();
      let done = 0;
      while (done < count && state.running) {
        const told = await service.call("advance", { count: count - done, settings: numbers() });
        append(told, false);
        done += told.length;
        const rate = (1000 * done) / (performance.now() - began);
        speed.textContent = count > 1 ? `${Math.round(rate)} tokens per second` : "";
        await new Promise((resolve) => setTimeout(resolve)); // let the page paint
      }
      if (count === 1) choose(state.dropped + state.tokens.length - 1);
    } finally {
      state.running = false;
      buttons();
    }
  }

  /** Generates text when the page opens, and describes the last token. */
  async function open() {
    await write(OPENING);
    choose(state.dropped + state.tokens.length - 1);
  }

  async function again() {
    state.running = false;
    state.begun = null;
    await write(settings.count.get());
  }

  const controls = {
    write: button("Write", () => write(settings.count.get()), { class: "primary" }),
    stop: button("Stop", () => (state.running = false)),
    step: button("Step", () => write(1), { title: "write one token" }),
    again: button("Start over", again, { title: "from the prompt, with the seed" }),
  };
  function buttons() {
    controls.write.disabled = controls.step.disabled = controls.again.disabled = state.running;
    controls.stop.disabled = !state.running;
  }
  buttons();

  paper.addEventListener("click", (event) => {
    const at = event.target.dataset.at;
    if (at !== undefined) choose(Number(at));
  });
  paper.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 40, ArrowUp: -40 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = state.dropped + state.tokens.length - 1;
    choose(
      state.chosen === null ? last : Math.max(state.dropped, Math.min(last, state.chosen + step)),
    );
  });
  surprise.addEventListener("change", () => paper.classList.toggle("heated", surprise.checked));
  input.addEventListener("input", () => {
    const problem = complaint(tokenizer, input.value);
    wrong.replaceChildren(...(problem ? [problem] : []));
  });

  const element = el(
    "div",
    { class: "write" },
    el(
      "section",
      { class: "controls" },
      el("div", { class: "prompt-field" }, field("Prompt", input), wrong),
      el(
        "div",
        { class: "settings" },
        ...Object.values(settings).map((setting) => setting.element),
      ),
      el("div", { class: "buttons" }, ...Object.values(controls), speed),
    ),
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        {},
        paper,
        el(
          "label",
          { class: "check" },
          surprise,
          "Shade tokens by their loss: what surprised the model",
        ),
      ),
      panel,
    ),
  );
  return { element, ids, open, write, settings };
}
