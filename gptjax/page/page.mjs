// The page: its header, its views and `window.gptjax`.

import { arrowKeys, el, number, whole } from "./dom.mjs";
import { followView } from "./follow.mjs";
import { lookView, tableView } from "./look.mjs";
import { partsView } from "./parts.mjs";
import { runView } from "./run.mjs";
import { startService } from "./service.mjs";
import { SharedText } from "./text.mjs";
import { makeTokenizer } from "./tokenizer.mjs";
import { writeView } from "./write.mjs";

const HINT = "The model knows only the characters of its training text";

/** Fills the page. */
export function start() {
  const service = startService();
  const { stored } = service;
  const tokenizer = makeTokenizer(stored.tokenizer);
  const sample = stored.samples.at(-1)?.text ?? "";
  const known = tokenizer.encode(sample).ids;
  heading(stored);
  offer(service, tokenizer);

  const shared = new SharedText(tokenizer, stored.config.block_size, known.slice(0, 48));
  const writing = writeView({ service, tokenizer, prompt: promptOf(sample) });
  const written = () => writing.ids();
  const parts = { service, tokenizer, shared, written };
  const isBigram = stored.config.model_name === "bigram";
  const views = [
    { id: "write", name: "Write", view: writing },
    ...(isBigram
      ? [{ id: "look", name: "Look", view: tableView(parts) }]
      : [
          { id: "look", name: "Look", view: lookView(parts) },
          { id: "follow", name: "Follow", view: followView(parts) },
          { id: "parts", name: "Parts", view: partsView(parts) },
        ]),
    { id: "run", name: "Run", view: runView({ stored, tokenizer }) },
  ];
  tabs(views);
  service.opened.then(
    () => writing.open(),
    (error) => say(`The model cannot be opened: ${error.message}`),
  );
  window.addEventListener("unhandledrejection", ({ reason }) =>
    say(`Something failed: ${reason?.message ?? reason}`),
  );
}

/** The first prompt, from a sample: a speaker's name, or else its first line. */
function promptOf(sample) {
  const lines = sample.split("\n").filter((line) => line.trim().length > 2);
  return (lines.find((line) => line.endsWith(":")) ?? lines[0] ?? "").slice(0, 24);
}

function say(text) {
  document.getElementById("status").textContent = text;
}

function heading({ name, step, config, parameters, curves }) {
  const count = parameters.reduce((sum, part) => sum + part.count, 0);
  const loss = curves.val_loss?.find(([at]) => at === step)?.[1];
  document.title = `${name}: inside the model`;
  document.getElementById("title").textContent = name;
  document.getElementById("subtitle").textContent = [
    config.model_name === "gpt" ? "a GPT" : `the lecture's model “${config.model_name}”`,
    `${whole(count)} parameters`,
    `after ${whole(step)} steps`,
    ...(loss === undefined ? [] : [`validation loss ${number(loss)}`]),
  ].join(" · ");
}

/** Makes one tab for each view. The address stores which tab is open. */
function tabs(views) {
  const bar = document.getElementById("tabs");
  const main = document.getElementById("main");
  function show(id) {
    for (const view of views) {
      const isOpen = view.id === id;
      view.tab.setAttribute("aria-selected", String(isOpen));
      view.tab.tabIndex = isOpen ? 0 : -1;
      view.panel.hidden = !isOpen;
      if (isOpen) view.view.show?.();
    }
  }
  for (const view of views) {
    const { id, name } = view;
    view.tab = el("button", {
      ...{ type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id, text: name },
      onclick: () => (location.hash = id),
    });
    view.panel = el(
      "div",
      { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}` },
      view.view.element,
    );
    view.tab.setAttribute("aria-controls", view.panel.id);
    bar.append(view.tab);
    main.append(view.panel);
  }
  arrowKeys(bar, "[role=tab]");
  const open = () => {
    const wanted = location.hash.slice(1);
    show(views.some(({ id }) => id === wanted) ? wanted : "write");
  };
  window.addEventListener("hashchange", open);
  open();
}

/** Makes `window.gptjax`: the model for programs and for the console. */
function offer(service, tokenizer) {
  const { block_size: T, vocab_size: V } = service.stored.config;
  const checked = (ids, most = Infinity) => {
    const list = Array.from(ids);
    if (!list.length || list.length > most) {
      throw new RangeError(
        `${list.length} ids: give 1${most === Infinity ? " or more" : ` to ${most}, block_size`}`,
      );
    }
    for (const id of list) {
      if (!Number.isInteger(id) || id < 0 || id >= V)
        throw new RangeError(`${id} is not a token id: ids go from 0 to ${V - 1}`);
    }
    return list;
  };
  window.gptjax = {
    ready: service.opened.then(() => true),
    config: service.stored.config,
    /** The ids of a text. Throws if the text has characters that the model does not know. */
    encode(text) {
      const { ids, unknown } = tokenizer.encode(text);
      if (unknown.length)
        throw new RangeError(`not in the vocabulary: ${unknown.join("")}. ${HINT}.`);
      return ids;
    },
    decode: (ids) => tokenizer.decode(Array.from(ids)),
    /** The V logits for the token after the ids; the model sees the last block_size of them. */
    logits: async (ids) => Array.from(await service.call("logits", { ids: checked(ids) })),
    /** attention[layer][head][t][s] for at most block_size ids. */
    attention: async (ids) => service.call("attention", { ids: checked(ids, T) }),
    /** Continues greedily by n ids; past block_size like `--window chunked`. */
    greedy: async (ids, n) => service.call("greedy", { ids: checked(ids), count: n }),
    /**
     * The mean loss in nats of all ids except the first. `off` turns parts off: "0.2" is head 2 of
     * layer 0, "0.attention" and "0.feedforward" are what layer 0 adds to the stream.
     */
    loss: async (ids, { off = [] } = {}) => service.call("loss", { ids: checked(ids, T), off }),
  };
}
