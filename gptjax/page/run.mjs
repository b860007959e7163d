// Run: how the model was trained.

import { curves, quantities } from "./charts.mjs";
import { el, whole } from "./dom.mjs";

export function runView({ stored, tokenizer }) {
  const { curves: points, samples, config, training, parameters, scale } = stored;
  const losses = [
    { name: "training", points: points.train_loss, kind: "train" },
    { name: "validation", points: points.val_loss, kind: "val" },
  ].filter((series) => series.points?.length);
  const others = [
    { key: "learning_rate", label: "Learning rate" },
    { key: "tokens_per_second", label: "Tokens per second" },
  ].filter(({ key }) => points[key]?.length);

  const available = document.getElementById("main").clientWidth;
  const half = available > 760 ? (available - 24) / 2 : available;
  const element = el("div", { class: "run" });
  if (losses.length) {
    element.append(
      el("h2", { text: "The loss" }),
      curves(losses, {
        label: `Loss, nats per ${tokenizer.unit}`,
        levels: scale,
        width: available,
        height: 320,
      }),
    );
    element.append(
      el("p", {
        class: "hint",
        text: `For comparison: ${scale.map(({ name, loss }) => `${name} ${loss.toFixed(2)}`).join(" · ")}`,
      }),
    );
  } else element.append(el("p", { text: "This run has no metrics." }));
  element.append(
    el(
      "div",
      { class: "pair" },
      ...others.map(({ key, label }) =>
        curves([{ name: "", points: points[key], kind: "train" }], {
          label,
          width: half,
          height: 180,
        }),
      ),
    ),
  );

  element.append(el("h2", { text: "How it learned to write" }));
  if (samples.length) {
    const cards = samples.map(({ step, text }) => {
      const loss = points.val_loss?.find(([at]) => at === step)?.[1];
      return el(
        "article",
        { class: "card" },
        el("h3", { text: `step ${whole(step)}` }),
        el("p", {
          class: "hint",
          text: loss === undefined ? "" : `validation loss ${loss.toFixed(3)}`,
        }),
        el("pre", { text }),
      );
    });
    element.append(
      el(
        "div",
        { class: "cards", tabindex: 0, role: "group", "aria-label": "Samples by step" },
        ...cards,
      ),
    );
  } else
    element.append(
      el("p", {
        text: "This run kept no samples: an earlier version trained it, or it was never evaluated.",
      }),
    );

  const total = parameters.reduce((sum, { count }) => sum + count, 0);
  element.append(
    el("h2", { text: `${whole(total)} parameters` }),
    quantities(
      parameters.map(({ part, count }) => ({ name: part, value: count, text: whole(count) })),
    ),
    el("h2", { text: "Configuration" }),
    el(
      "div",
      { class: "pair" },
      settings("Model", config),
      settings("Training", { text: stored.text, ...training }),
    ),
    el("p", {
      class: "hint",
      text: `Weights in this file: ${stored.dtype}. Written by gptjax ${stored.version}.`,
    }),
  );
  return { element };
}

function settings(title, values) {
  const rows = Object.entries(values).map(([name, value]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", text: name }),
      el("td", { text: typeof value === "number" ? `${value}` : String(value) }),
    ),
  );
  return el(
    "section",
    {},
    el("h3", { text: title }),
    el("table", { class: "settings-table" }, ...rows),
  );
}
