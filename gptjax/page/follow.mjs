// Follow: the residual stream by depth, and the predictions if the model ended there.

import { bars, quantities } from "./charts.mjs";
import { el, number, percent, visible } from "./dom.mjs";
import { newestOnly } from "./service.mjs";
import { textPicker } from "./text.mjs";

export function followView({ service, tokenizer, shared, written }) {
  const table = el("div", { class: "lens", role: "group", "aria-label": "Predictions by depth" });
  const panel = el("section", { class: "follow-panel", "aria-live": "polite" });
  const norms = el("section", {});
  const picker = textPicker(shared, written);
  const state = { seen: null };

  const refresh = newestOnly(async () => {
    const ids = [...shared.ids];
    state.seen = await service.call("follow", { ids });
    if (ids.length === shared.ids.length) render();
  });

  const depthName = (depth) => (depth === 0 ? "embedding" : `layer ${depth}`);

  function render() {
    renderTable();
    renderToken();
  }

  /** A row for each depth, the deepest on top, and a column for each token. */
  function renderTable() {
    const depths = state.seen[0].lens.length;
    const body = el("table", {});
    const head = el("tr", {}, el("th", { scope: "row", text: "text" }));
    head.append(...shared.pieces.map((piece, t) => cell("th", visible(piece), t, null)));
    for (let depth = depths - 1; depth >= 0; depth--) {
      const row = el("tr", {}, el("th", { scope: "row", text: depthName(depth) }));
      state.seen.forEach(({ lens }, t) => {
        const [best] = lens[depth].best;
        const item = cell("td", visible(tokenizer.piece(best.id)), t, best.probability);
        if (best.id === shared.ids[t + 1]) item.classList.add("right");
        item.title = `${depthName(depth)}: ${percent(best.probability)}`;
        row.append(item);
      });
      body.append(row);
    }
    body.append(head);
    table.replaceChildren(body);
    markColumn();
  }

  function cell(tag, text, t, probability) {
    const item = el(tag, { text, "data-at": t });
    if (probability !== null) item.style.setProperty("--heat", probability);
    return item;
  }

  function markColumn() {
    for (const item of table.querySelectorAll("[data-at]")) {
      item.classList.toggle("chosen", Number(item.dataset.at) === shared.position);
    }
  }

  function renderToken() {
    const t = shared.position;
    const seen = state.seen[t];
    if (!seen) return;
    const next = shared.ids[t + 1];
    const columns = seen.lens.map(({ best, target }, depth) =>
      el(
        "section",
        { class: "depth" },
        el("h3", { text: depth === 0 ? "Embedding alone" : `After layer ${depth}` }),
        bars(best.slice(0, 5), tokenizer, { taken: next ?? null }),
        target === null
          ? null
          : el("p", { class: "hint", text: `actual token: ${percent(target)}` }),
      ),
    );
    panel.replaceChildren(
      el("h2", { text: `What comes after “${visible(shared.pieces[t])}”?` }),
      el("p", {
        text: "The output layer reads the stream after each layer, as if the model ended there (the logit lens).",
      }),
      el("div", { class: "depths" }, ...columns),
    );
    const items = [{ name: "embedding", value: seen.stream[0], text: number(seen.stream[0], 2) }];
    seen.attention.forEach((value, layer) => {
      items.push({ name: `layer ${layer + 1}: attention`, value, text: number(value, 2) });
      const wide = seen.feedforward[layer];
      if (wide !== undefined)
        items.push({
          name: `layer ${layer + 1}: feed-forward`,
          value: wide,
          text: number(wide, 2),
        });
    });
    items.push({
      name: "the stream at the end",
      value: seen.stream.at(-1),
      text: number(seen.stream.at(-1), 2),
    });
    norms.replaceChildren(
      el("h2", { text: "How much each part adds" }),
      el("p", {
        text: "The length (L2 norm) of the vector that each part adds to the stream at this token.",
      }),
      quantities(items),
    );
  }

  table.addEventListener("pointerover", (event) => {
    const at = event.target.dataset?.at;
    if (at !== undefined) shared.choose(Number(at));
  });
  table.addEventListener("click", (event) => {
    const at = event.target.dataset?.at;
    if (at !== undefined) shared.choose(Number(at));
  });
  shared.listeners.add((what) => {
    if (!element.isConnected || element.offsetParent === null) return;
    if (what === "text") refresh();
    else if (state.seen?.length === shared.ids.length) {
      markColumn();
      renderToken();
    }
  });
  const element = el(
    "div",
    {},
    el("p", {
      text: "From the bottom up: what the model would predict if it ended after each layer. A frame marks the actual next token.",
    }),
    picker.element,
    table,
    panel,
    norms,
  );
  return { element, show: refresh };
}
