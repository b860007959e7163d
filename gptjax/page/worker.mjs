// The model's side of the page, in a worker: it answers calls by name, one after the other.

import { follow, habits, look, meanLoss, numbers, SHOWN } from "./analysis.mjs";
import { Model, Session } from "./model.mjs";
import { argmax, draw, likeliest, lossOf, probabilities, Random } from "./sampling.mjs";
import { fromBase64, readTensors } from "./weights.mjs";

// A call that generates answers after so many milliseconds, so that the page can stop it.
const PATIENCE = 30;

/** The calls, over one model and one text that grows. */
export class Service {
  /** @param {{config: object, tensors: object[], dtype: string}} stored of the page's data. */
  constructor(stored, base64) {
    const tensors = readTensors(stored.tensors, stored.dtype, fromBase64(base64));
    this.model = new Model(stored.config, tensors);
    this.session = null;
    this.random = null;
  }

  /** What follows a text: V logits after its last token. */
  logits({ ids }) {
    return Float32Array.from(new Session(this.model, ids).logits);
  }

  /** attention[layer][head] of a text that fits block_size: T rows of T weights. */
  attention({ ids, off }) {
    const rows = (matrix) =>
      ids.map((_, t) => Array.from(matrix.subarray(t * ids.length, (t + 1) * ids.length)));
    return look(this.model, ids, setOf(off)).attention.map((heads) => heads.map(rows));
  }

  greedy({ ids, count }) {
    const session = new Session(this.model, ids);
    for (let i = 0; i < count; i++) session.push(argmax(session.logits));
    return session.ids.slice(ids.length);
  }

  loss({ ids, off }) {
    return meanLoss(this.model, ids, setOf(off));
  }

  /** Begins a text; tells of each token what `describe` says. */
  begin({ ids, seed }) {
    this.random = new Random(seed);
    this.session = new Session(this.model);
    const told = [];
    for (const id of ids) {
      told.push(this.describe(id));
      this.session.push(id);
    }
    return told;
  }

  /** Draws up to `count` tokens more, as many as a moment allows. */
  advance({ count, settings }) {
    const told = [];
    const end = performance.now() + PATIENCE;
    while (told.length < count && (told.length === 0 || performance.now() < end)) {
      const id = draw(this.session.logits, settings, this.random.next());
      told.push(this.describe(id));
      this.session.push(id);
    }
    return told;
  }

  /** What the model expected in the place of a token that is about to come. */
  describe(id) {
    const { logits } = this.session;
    if (!logits) return { id, loss: null, best: [] }; // nothing comes before it
    return { id, loss: lossOf(logits, id), best: likeliest(probabilities(logits), SHOWN) };
  }

  look({ ids, off, pieces }) {
    const seen = look(this.model, ids, setOf(off));
    return { ...seen, habits: habits(seen.attention, ids, pieces) };
  }

  follow({ ids }) {
    return follow(this.model, ids);
  }

  numbers({ ids, layer, head }) {
    return numbers(this.model, ids, layer, head);
  }

  /** The bigram's table as probabilities: row i is what follows token i. */
  table() {
    const { V } = this.model;
    return Array.from({ length: V }, (_, id) =>
      probabilities(this.model.table.subarray(id * V, (id + 1) * V)),
    );
  }
}

const setOf = (names) => (names?.length ? new Set(names) : null);

/** Answers the messages of a page: {number, name, argument}, the first of which is `open`. */
export function serve(scope) {
  let service = null;
  scope.onmessage = ({ data: { number, name, argument } }) => {
    try {
      if (name === "open") service = new Service(argument.stored, argument.base64);
      scope.postMessage({ number, result: name === "open" ? null : service[name](argument) });
    } catch (error) {
      scope.postMessage({ number, error: String(error) });
    }
  };
}
