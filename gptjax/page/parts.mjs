// Parts: a diagram of the model, whose boxes open to show the numbers of the chosen token.

import { bars, strip } from "./charts.mjs";
import { el, field, number, percent, visible, whole } from "./dom.mjs";
import { newestOnly } from "./service.mjs";
import { textPicker } from "./text.mjs";

const WRITTEN_OUT = 24; // this many numbers of a vector are written out

export function partsView({ service, tokenizer, shared, written }) {
  const { config, tensors } = service.stored;
  const shape = (ending) => tensors.find(({ path }) => path.endsWith(ending))?.shape;
  const queries = tensors.filter(({ path }) => path.endsWith("query/kernel"));
  const layers = queries.length;
  const [heads, , D] = queries[0].shape.length === 3 ? queries[0].shape : [1, ...queries[0].shape];
  const { n_embd: C, vocab_size: V, block_size: T } = config;

  const choice = (count, name) =>
    el(
      "select",
      { "aria-label": name },
      ...Array.from({ length: count }, (_, i) =>
        el("option", { value: i, text: `${name} ${i + 1}` }),
      ),
    );
  const layer = choice(layers, "layer");
  const head = choice(heads, "head");
  const picker = textPicker(shared, written);
  const opened = new Set();
  const diagram = el("div", { class: "diagram" });

  const refresh = newestOnly(async () => {
    const ids = shared.ids.slice(0, shared.position + 1);
    const found = await service.call("numbers", {
      ids,
      layer: Number(layer.value),
      head: Number(head.value),
    });
    if (ids.length === shared.position + 1) render(found);
  });

  /** One box: its name, the shape of its output, and its numbers, which are made on opening. */
  function box(id, name, shapes, formula, content) {
    const body = el("div", { class: "numbers" });
    const fill = () =>
      body.replaceChildren(el("p", { class: "formula", text: formula }), ...content());
    const details = el(
      "details",
      { class: "box", open: opened.has(id) },
      el(
        "summary",
        {},
        el("span", { class: "box-name", text: name }),
        el("code", { text: shapes }),
      ),
      body,
    );
    details.addEventListener("toggle", () => {
      if (details.open) {
        opened.add(id);
        fill();
      } else opened.delete(id);
    });
    if (opened.has(id)) fill();
    return details;
  }

  /** A vector as a strip, with its first numbers written out. */
  function vector(name, values) {
    if (!values) return [];
    const shown = Array.from(values.slice(0, WRITTEN_OUT), (value) => number(value, 3));
    const rest =
      values.length > WRITTEN_OUT ? `  … ${whole(values.length - WRITTEN_OUT)} more` : "";
    return [
      el("p", { class: "vector-name", text: `${name} (${values.length})` }),
      strip(Array.from(values), name),
      el("p", { class: "values", text: shown.join("  ") + rest }),
    ];
  }

  /** Scores, the mask and the weights, position by position. */
  function scores({ scores: raw, weights }) {
    const rows = shared.pieces.map((piece, s) =>
      el(
        "tr",
        { class: s < raw.length ? null : "hidden-by-mask" },
        el("td", { text: `${s + 1}` }),
        el("td", { class: "piece", text: visible(piece) }),
        el("td", { text: s < raw.length ? number(raw[s], 2) : "−∞" }),
        el("td", { text: s < raw.length ? percent(weights[s]) : "0" }),
      ),
    );
    const names = ["", "token", "score", "weight"].map((text) => el("th", { text }));
    return [el("div", { class: "scores" }, el("table", {}, el("tr", {}, ...names), ...rows))];
  }

  function render(found) {
    const { parts } = found;
    const at = shared.position;
    const piece = `“${visible(shared.pieces[at])}”`;
    const t = at + 1;
    const block = [];
    if (parts.ln_1 && shape("ln_1/scale")) {
      block.push(
        box("ln_1", "LayerNorm", `(${C})`, "zero mean, unit variance, times a learned scale", () =>
          vector("normalised", parts.ln_1),
        ),
      );
    }
    block.push(
      el(
        "div",
        { class: "three" },
        box("q", "query", `(${D})`, "what this token looks for", () => vector("q", found.q)),
        box("k", "key", `(${D})`, "what this token offers to others", () => vector("k", found.k)),
        box("v", "value", `(${D})`, "what this token passes to tokens that look at it", () =>
          vector("v", found.v),
        ),
      ),
      box(
        "scores",
        "scores, mask, softmax",
        `(${t}) of ${shared.ids.length}`,
        `q · k / √${D} for each position so far (later ones are masked), then softmax`,
        () => scores(found),
      ),
      box(
        "output",
        `output of head ${Number(head.value) + 1}`,
        `(${D})`,
        "the sum of the values, times these weights",
        () => vector("weights · values", found.output),
      ),
    );
    if (heads > 1)
      block.push(
        box(
          "heads",
          `${heads} heads side by side`,
          `(${heads * D})`,
          "the outputs of all heads, concatenated",
          () => vector("heads", parts.heads),
        ),
      );
    if (shape("attn/proj/kernel")) {
      block.push(
        box(
          "attention",
          "projection, added to the stream",
          `(${C})`,
          "mixes the heads; the sum is the stream after attention",
          () => [
            ...vector("what attention adds", parts.attention),
            ...vector("the stream", parts.middle),
          ],
        ),
      );
    }
    if (shape("ln_2/scale")) block.push(el("p", { class: "arrow", text: "LayerNorm" }));
    if (parts.fc) {
      block.push(
        box(
          "fc",
          `feed-forward, ${parts.fc.length} wide`,
          `(${parts.fc.length})`,
          `a matrix, then ${config.activation}: ${share(parts.activation)} of the numbers are not 0`,
          () => [
            ...vector("before the activation", parts.fc),
            ...vector("after it", parts.activation),
          ],
        ),
        box(
          "feedforward",
          "back to the stream",
          `(${found.after.length})`,
          "the input of the next layer",
          () => [
            ...(shape("mlp/proj/kernel")
              ? vector("what feed-forward adds", parts.feedforward)
              : []),
            ...vector("the stream after this layer", found.after),
          ],
        ),
      );
    }
    diagram.replaceChildren(
      box(
        "ids",
        `token ${piece} at position ${t}`,
        `id ${shared.ids[at]} of ${V}`,
        "the text as numbers; the model sees only this",
        () => [el("p", { class: "values", text: shared.ids.slice(0, t).join("  ") })],
      ),
      el(
        "div",
        { class: "three two" },
        box(
          "wte",
          "token embedding",
          `(${V}, ${C})`,
          `row ${shared.ids[at]} of the table of tokens`,
          () => vector("token", found.token),
        ),
        config.model_name === "without-positions"
          ? null
          : box(
              "wpe",
              "position embedding",
              `(${T}, ${C})`,
              `row ${at} of the table of positions`,
              () => vector("position", found.position),
            ),
      ),
      box("embedded", "their sum: the residual stream begins", `(${C})`, "token + position", () =>
        vector("the stream", found.embedded),
      ),
      el(
        "section",
        { class: "block" },
        el("h3", { text: `Layer ${Number(layer.value) + 1} of ${layers}` }),
        ...block,
      ),
      ...(found.normed
        ? [
            box("ln_f", "final LayerNorm", `(${C})`, "after the last layer", () => [
              ...vector("the stream", found.last),
              ...vector("normalised", found.normed),
            ]),
          ]
        : []),
      box("logits", "output layer: logits", `(${V})`, `one score for each of the ${V} tokens`, () =>
        vector("logits", found.logits),
      ),
      box("softmax", "softmax: probabilities", `(${V})`, "of the next token", () => [
        bars(best(found.probabilities), tokenizer, { taken: shared.ids[at + 1] ?? null }),
      ]),
    );
  }

  const share = (values) =>
    percent(values.reduce((count, x) => count + (x !== 0), 0) / values.length);
  const best = (values) =>
    Array.from(values, (probability, id) => ({ id, probability }))
      .sort((a, b) => b.probability - a.probability)
      .slice(0, 10);

  for (const select of [layer, head]) select.addEventListener("change", refresh);
  shared.listeners.add(() => {
    if (element.isConnected && element.offsetParent !== null) refresh();
  });
  const element = el(
    "div",
    { class: "parts" },
    el("p", {
      text: "One token on its way through the model, from top to bottom. Open a box to see its numbers.",
    }),
    picker.element,
    el(
      "div",
      { class: "selects" },
      layers > 1 ? field("Layer", layer) : null,
      heads > 1 ? field("Head", head) : null,
    ),
    diagram,
  );
  return { element, show: refresh };
}
