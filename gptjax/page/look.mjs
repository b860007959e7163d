// Look: what each head attends to, the habits of heads, and the model with some parts turned off.

import { bars, matrix, painted } from "./charts.mjs";
import { arrowKeys, button, el, number, percent, visible } from "./dom.mjs";
import { headName, partName } from "./names.mjs";
import { newestOnly } from "./service.mjs";
import { textPicker } from "./text.mjs";

const HABITS = {
  itself: "at itself",
  before: "at the previous token",
  twoBefore: "two tokens back",
  threeBefore: "three tokens back",
  space: "at the last space",
  line: "at the line's beginning",
  same: "at the last same token",
  afterSame: "after the last same token",
};
// A head has a habit if at least this share of its weight goes to one place.
const HABIT = 0.3;
// A table with more tokens than this has no room for their names.
const MOST_NAMED = 100;

/** A head's habit: the name of the place, and its share of the weights; null if it has none. */
function habitOf(shares) {
  const [name, share] = Object.entries(shares).reduce((a, b) => (b[1] > a[1] ? b : a));
  return share >= HABIT ? { name: HABITS[name], share } : null;
}

export function lookView({ service, tokenizer, shared, written }) {
  const state = { layer: 0, head: 0, off: new Set(), seen: null, whole: null, hasChosen: false };
  const grid = el("div", { class: "heads", role: "group", "aria-label": "Heads" });
  const detail = el("section", { class: "head-detail" });
  const outcome = el("section", { "aria-live": "polite" });
  const picker = textPicker(shared, written);

  /** The attention of the chosen head, with the parts that are off left out. */
  const weights = () => state.seen.attention[state.layer][state.head];

  const refresh = newestOnly(async () => {
    const [ids, pieces] = [[...shared.ids], [...shared.pieces]];
    const off = [...state.off];
    state.whole = await service.call("look", { ids, pieces, off: [] });
    state.seen = off.length ? await service.call("look", { ids, pieces, off }) : state.whole;
    if (!state.hasChosen) chooseByHabit();
    if (ids.length === shared.ids.length) render();
  });

  /** Chooses the head to show first: the one with the strongest habit. */
  function chooseByHabit() {
    state.hasChosen = true;
    const strengths = state.whole.habits.flatMap((heads, layer) =>
      heads.map((shares, head) => ({ layer, head, share: Math.max(...Object.values(shares)) })),
    );
    const { layer, head } = strengths.reduce((a, b) => (b.share > a.share ? b : a));
    Object.assign(state, { layer, head });
  }

  function render() {
    renderGrid();
    renderDetail();
    renderOutcome();
  }

  function toggle(name) {
    if (!state.off.delete(name)) state.off.add(name);
    refresh();
  }

  function renderGrid() {
    const T = state.seen.next.length;
    const focused = document.activeElement?.dataset?.head;
    const rows = state.seen.attention.map((heads, layer) =>
      el(
        "div",
        { class: "layer" },
        el("span", { class: "layer-name", text: `Layer ${layer + 1}` }),
        el(
          "div",
          { class: "layer-heads" },
          ...heads.map((values, head) => headButton(values, T, layer, head)),
        ),
      ),
    );
    grid.replaceChildren(...rows);
    grid.querySelector(`[data-head="${focused}"]`)?.focus();
  }

  function headButton(values, T, layer, head) {
    const name = headName(layer, head);
    const habit = habitOf(state.whole.habits[layer][head]);
    const chosen = layer === state.layer && head === state.head;
    const label = `Layer ${layer + 1}, head ${head + 1}${habit ? `, looks ${habit.name}` : ""}`;
    return el(
      "button",
      {
        ...{
          type: "button",
          "data-head": name,
          "aria-pressed": String(chosen),
          "aria-label": label,
        },
        class: state.off.has(name) ? "head off" : "head",
        onclick: () => {
          Object.assign(state, { layer, head });
          render();
        },
      },
      matrix(values, T, T, ""),
      el("small", { text: habit ? `${habit.name} ${percent(habit.share)}` : `head ${head + 1}` }),
    );
  }

  function renderDetail() {
    const T = shared.ids.length;
    if (state.seen.next.length !== T) return;
    const { layer, head } = state;
    const t = shared.position;
    const row = Array.from(weights().subarray(t * T, (t + 1) * T));
    picker.shade(row.map((weight) => Math.sqrt(weight)));
    const shares = Object.entries(state.whole.habits[layer][head]);
    shares.sort((a, b) => b[1] - a[1]);
    const picture = matrix(weights(), T, T, `Attention of layer ${layer + 1}, head ${head + 1}`);
    const marked = el("div", { class: "marked-matrix" }, picture, rowMark(t, T));
    const said = el("p", {
      class: "hint",
      text: "Each row is a token, and each column is a token that it attends to.",
    });
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const to = Math.floor(((event.clientY - box.top) / box.height) * T);
      const from = Math.floor(((event.clientX - box.left) / box.width) * T);
      const weight = weights()[to * T + from];
      if (from > to || weight === undefined)
        said.textContent = "No token looks ahead: the mask hides later tokens.";
      else {
        const names = [to, from].map((at) => `“${visible(shared.pieces[at])}” (${at + 1})`);
        said.textContent = `${names[0]} looks at ${names[1]} with weight ${percent(weight)}`;
      }
    });
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      shared.choose(Math.floor(((event.clientY - box.top) / box.height) * T));
    });
    detail.replaceChildren(
      el("h3", { text: `Layer ${layer + 1}, head ${head + 1}` }),
      el("p", {}, `“${visible(shared.pieces[t])}” looks ${strongest(row)}.`),
      marked,
      said,
      el("h3", { text: "Where this head looks" }),
      el(
        "ul",
        { class: "habits" },
        ...shares
          .slice(0, 4)
          .map(([name, share]) => el("li", { text: `${HABITS[name]}: ${percent(share)}` })),
      ),
    );
  }

  /** Describes the two tokens with the largest weights in a row. */
  function strongest(row) {
    const order = row.map((weight, at) => ({ weight, at })).sort((a, b) => b.weight - a.weight);
    return order
      .slice(0, 2)
      .filter(({ weight }) => weight > 0.01)
      .map(
        ({ weight, at }) =>
          `at “${visible(shared.pieces[at])}” (${at + 1}) with weight ${percent(weight)}`,
      )
      .join(", and ");
  }

  function renderOutcome() {
    const mean = (losses) => losses.reduce((a, b) => a + b, 0) / losses.length;
    const before = mean(state.whole.losses);
    const after = mean(state.seen.losses);
    const { layer, head } = state;
    const isOff = state.off.size > 0;
    const t = Math.min(shared.position, state.seen.next.length - 1);
    const lines = [];
    if (shared.ids.length > 1) {
      lines.push(
        el(
          "p",
          { class: "verdict" },
          ...["Loss of this text: ", el("strong", { text: number(isOff ? after : before) })],
          ...(isOff
            ? [
                el("span", {
                  class: after > before ? "worse" : "better",
                  text: ` ${after >= before ? "+" : "−"}${number(Math.abs(after - before))} with ${state.off.size} off`,
                }),
              ]
            : []),
        ),
      );
    }
    const switchOf = (name, text) =>
      button(text, () => toggle(name), {
        "aria-pressed": String(state.off.has(name)),
        class: "switch",
      });
    const layerSwitches =
      service.stored.config.n_layer && hasResidual(service.stored)
        ? [
            switchOf(partName(layer, "attention"), `Attention of layer ${layer + 1}`),
            switchOf(partName(layer, "feedforward"), `Feed-forward of layer ${layer + 1}`),
          ]
        : [];
    outcome.replaceChildren(
      el("h3", { text: "Turn parts off" }),
      el(
        "div",
        { class: "switches" },
        switchOf(headName(layer, head), `Head ${head + 1} of layer ${layer + 1}`),
        ...layerSwitches,
      ),
      isOff
        ? button("Turn everything on", () => {
            state.off.clear();
            refresh();
          })
        : el("p", { class: "hint", text: "A part that is off adds nothing to the stream." }),
      ...lines,
      el("h3", { text: `Predictions after “${visible(shared.pieces[t])}”` }),
      bars(state.seen.next[t], tokenizer, {
        taken: shared.ids[t + 1] ?? null,
        before: isOff ? state.whole.next[t] : null,
      }),
      ...(isOff ? [el("p", { class: "hint", text: "The dark marks show the whole model." })] : []),
    );
  }

  shared.listeners.add((what) => {
    if (!element.isConnected || element.offsetParent === null) return;
    if (what === "text") refresh();
    else if (state.seen?.next.length === shared.ids.length) {
      renderDetail();
      renderOutcome();
    }
  });
  arrowKeys(grid, ".head");
  const element = el(
    "div",
    { class: "look" },
    el("p", {
      text: "Each square is one head. Its rows show where each token of the text looks. Choose a head, point at a token, or turn a head off to see how the loss changes.",
    }),
    picker.element,
    el("div", { class: "look-columns" }, grid, detail, outcome),
  );
  return { element, show: refresh };
}

/** Whether a model has a residual stream, so that layers can be turned off. */
function hasResidual({ tensors }) {
  return tensors.some(({ path }) => path.endsWith("attn/proj/kernel"));
}

/** A square picture with names along its rows and columns, if these are large enough to read. */
function labelled(canvas, names) {
  if (names.length > MOST_NAMED) return canvas;
  const axis = (kind) =>
    el(
      "div",
      { class: `axis ${kind}`, "aria-hidden": "true" },
      ...names.map((text) => el("span", { text })),
    );
  return el("div", { class: "labelled" }, axis("columns-axis"), axis("rows-axis"), canvas);
}

/** A line over a row of a matrix. */
function rowMark(t, T) {
  const mark = el("span", { class: "row-mark" });
  mark.style.top = `${(100 * t) / T}%`;
  mark.style.height = `${100 / T}%`;
  return mark;
}

/** The bigram model is one table: for each token, the probabilities of the next one. */
export function tableView({ service, tokenizer }) {
  const V = service.stored.config.vocab_size;
  const said = el("p", { class: "hint", "aria-live": "polite" });
  const best = el("section", { class: "panel" });
  const canvas = el("canvas", {
    width: V,
    height: V,
    class: "matrix table",
    role: "img",
    tabindex: 0,
  });
  canvas.setAttribute("aria-label", "The bigram's table: rows are tokens, columns are next tokens");
  const state = { rows: null, id: 0 };
  const names = Array.from({ length: V }, (_, id) => visible(tokenizer.piece(id)));

  function choose(id) {
    state.id = (id + V) % V;
    const piece = visible(tokenizer.piece(state.id));
    const order = Array.from(state.rows[state.id], (probability, next) => ({
      id: next,
      probability,
    }));
    order.sort((a, b) => b.probability - a.probability);
    best.replaceChildren(
      el("h3", { text: `Predictions after “${piece}”` }),
      bars(order.slice(0, 12), tokenizer),
    );
  }
  canvas.addEventListener("pointermove", (event) => {
    if (!state.rows) return;
    const box = canvas.getBoundingClientRect();
    const row = Math.min(V - 1, Math.floor(((event.clientY - box.top) / box.height) * V));
    const column = Math.min(V - 1, Math.floor(((event.clientX - box.left) / box.width) * V));
    said.textContent = `“${names[column]}” follows “${names[row]}” with probability ${number(state.rows[row][column])}`;
    if (row !== state.id) choose(row);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !state.rows) return;
    event.preventDefault();
    choose(state.id + step);
  });

  async function show() {
    if (state.rows) return;
    state.rows = await service.call("table");
    const flat = state.rows.flatMap((row) => Array.from(row));
    const source = matrix(flat, V, V, "");
    painted(canvas, () => {
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, V, V);
      source.paint();
      context.drawImage(source, 0, 0);
    });
    choose(tokenizer.startId);
  }
  const element = el(
    "div",
    {},
    el("p", {
      text: "The whole model is this table. A row is a token, and a column is the next token. The stronger the color, the likelier the pair.",
    }),
    el("div", { class: "columns" }, el("section", {}, labelled(canvas, names), said), best),
  );
  return { element, show };
}
