// The model, in a worker: it answers the page's calls by name, one after the other.

import { follow, habits, look, meanLoss, numbers, SHOWN } from "./analysis.mjs";
import { Model, Session } from "./model.mjs";
import { argmax, draw, likeliest, lossOf, probabilities, Random } from "./sampling.mjs";
import { fromBase64, readTensors } from "./weights.mjs";

// A call that generates text returns after this many milliseconds, so that the page can stop it.
const PATIENCE = 30;

/** The calls, for one model and one growing text. */
export class Service {
  /** @param {{config: object, tensors: object[], dtype: string}} stored of the page's data. */
  constructor(stored, base64) {
    const tensors = readTensors(stored.tensors, stored.dtype, fromBase64(base64));
    this.model = new Model(stored.config, tensors);
    this.session = null;
    this.random = null;
  }

  /** The V logits after the last token of a text. */
  logits({ ids }) {
    return Float32Array.from(new Session(this.model, ids).logits);
  }

  /** attention[layer][head] of a text of at most block_size tokens: T rows of T weights. */
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

  /** Starts a text, and describes each of its tokens. */
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

  /** Draws up to `count` more tokens, until PATIENCE has passed. */
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

  /** Describes a token before it is added: its loss, and what the model expected instead. */
  describe(id) {
    const { logits } = this.session;
    if (!logits) return { id, loss: null, best: [] }; // no token precedes it
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

  /** The bigram's table as probabilities: row i is for the token after token i. */
  table() {
    const { V } = this.model;
    return Array.from({ length: V }, (_, id) =>
      probabilities(this.model.table.subarray(id * V, (id + 1) * V)),
    );
  }
}

const setOf = (names) => (names?.length ? new Set(names) : null);

/** Answers the page's messages {number, name, argument}. The first must be `open`. */
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
