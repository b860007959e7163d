// The forward pass, one token at a time, with a cache of keys and values.
//
// The names are those of model.py: T positions (block_size), C the width of the residual stream,
// H heads of D numbers each, V tokens in the vocabulary.

import { ACTIVATIONS, add, Dense, Layer, LayerNorm, transposed } from "./layers.mjs";

/** The Transformer paper's table of positions, as rungs.py scales it: (T, C). */
function sinusoids(T, C) {
  const table = new Float32Array(T * C);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < C; i += 2) {
      const angle = t / 10000 ** (i / C);
      table[t * C + i] = Math.sin(angle) * 0.02 * Math.SQRT2;
      table[t * C + i + 1] = Math.cos(angle) * 0.02 * Math.SQRT2;
    }
  }
  return table;
}

/** A GPT or a model of the lecture, from the parameters of a run. */
export class Model {
  /**
   * @param {object} config model_name, and GPTConfig's fields.
   * @param {Map<string, {shape: number[], data: Float32Array}>} tensors by their paths in the tree.
   */
  constructor(config, tensors) {
    this.config = config;
    this.name = config.model_name;
    this.T = config.block_size;
    this.V = config.vocab_size;
    this.tensors = tensors;
    this.isBigram = this.name === "bigram";
    this.hasCache = this.name === "gpt"; // the others re-encode their window, as in decoding.py
    if (this.isBigram) {
      this.table = tensors.get("table/embedding").data;
      this.C = this.V;
      this.layers = [];
      return;
    }
    this.wte = tensors.get("wte/embedding").data;
    this.C = config.n_embd;
    this.wpe = tensors.get("wpe/embedding")?.data ?? null;
    if (this.name === "sinusoids") this.wpe = sinusoids(this.T, this.C);
    const trunk = tensors.has("trunk/lm_head/kernel") ? "trunk/" : "";
    this.layers = this.makeLayers(trunk);
    this.ln_f = this.layerNorm(`${trunk}ln_f`);
    this.lm_head = this.dense(`${trunk}lm_head`);
    if (!this.lm_head) {
      // Tied: the token table (V, C) already is the output matrix, with a row per output.
      const bias = tensors.get("lm_head/bias")?.data ?? null;
      this.lm_head = new Dense(this.wte, this.C, this.V, bias);
    }
    this.tensors = null; // the layers have copies
  }

  makeLayers(trunk) {
    if (this.tensors.has("head/query/kernel")) return [this.layer(0, "head/", "", false)];
    if (this.tensors.has("attn/heads/query/kernel")) {
      return [this.layer(0, "attn/heads/", "", false)];
    }
    const layers = [];
    for (let i = 0; i < this.config.n_layer; i++) {
      const block = `${trunk}block_${i}/`;
      layers.push(this.layer(i, `${block}attn/heads/`, block, true));
    }
    return layers;
  }

  /** Makes a layer from the heads under the path `heads` and the other parts under `block`. */
  layer(index, heads, block, residual) {
    const mlp = this.dense(`${block}mlp`);
    const parts = {
      ...{ index, residual },
      query: this.denseOfHeads(`${heads}query`),
      key: this.denseOfHeads(`${heads}key`),
      value: this.denseOfHeads(`${heads}value`),
      proj: residual ? this.dense(`${block}attn/proj`) : null,
      fc: residual ? this.dense(`${block}mlp/fc`) : mlp,
      out: residual ? this.dense(`${block}mlp/proj`) : null,
      ln_1: residual ? this.layerNorm(`${block}ln_1`) : null,
      ln_2: residual ? this.layerNorm(`${block}ln_2`) : null,
      activation: ACTIVATIONS[mlp ? "relu" : this.config.activation],
    };
    return new Layer(parts, this);
  }

  /** One Dense for each head of a kernel (H, C, D). A single head may have the shape (C, D). */
  denseOfHeads(path) {
    const { shape, data } = this.tensors.get(`${path}/kernel`);
    const bias = this.tensors.get(`${path}/bias`)?.data ?? null;
    const [H, C, D] = shape.length === 3 ? shape : [1, ...shape];
    return Array.from({ length: H }, (_, h) =>
      transposed(data.subarray(h * C * D, (h + 1) * C * D), C, D, bias?.subarray(h * D, h * D + D)),
    );
  }

  dense(path) {
    const kernel = this.tensors.get(`${path}/kernel`);
    if (!kernel) return null;
    const bias = this.tensors.get(`${path}/bias`)?.data ?? null;
    return transposed(kernel.data, ...kernel.shape, bias);
  }

  layerNorm(path) {
    const scale = this.tensors.get(`${path}/scale`);
    if (!scale) return null;
    return new LayerNorm(scale.data, this.tensors.get(`${path}/bias`)?.data ?? null);
  }

  /** An empty cache for up to block_size tokens. */
  begin() {
    const caches = this.layers.map(({ H, D }) => ({
      keys: new Float32Array(this.T * H * D),
      values: new Float32Array(this.T * H * D),
    }));
    return { length: 0, caches };
  }

  /**
   * Reads one more token, and returns the logits for the next one.
   *
   * @param {object} state from `begin`; `step` changes it.
   * @param {{off?: Set<string>, trace?: object}} options `off` has the parts that are turned off,
   *   by headName and partName; `trace` has functions that receive intermediate numbers:
   *   `embedded(token, position, x)`, `head(layer, head, numbers)`, `part(layer, name, numbers)`,
   *   `stream(depth, x)`.
   */
  step(state, id, { off = null, trace = null } = {}) {
    const t = state.length++;
    if (this.isBigram) return this.table.slice(id * this.V, (id + 1) * this.V);
    const C = this.C;
    const token = this.wte.slice(id * C, id * C + C);
    const position = this.wpe ? this.wpe.slice(t * C, t * C + C) : null;
    let x = position ? add(token.slice(), position) : token;
    trace?.embedded?.(token, position, x);
    trace?.stream?.(0, x);
    this.layers.forEach((layer, i) => {
      x = layer.apply(x, state.caches[i], t, off, trace);
      trace?.stream?.(i + 1, x);
    });
    return this.readout(x);
  }

  /** The logits for a state of the residual stream; after the last block, the model's output. */
  readout(x) {
    return this.lm_head.apply(this.ln_f ? this.ln_f.apply(x) : x);
  }
}

/** A growing text: its ids, and the cache of its window. */
export class Session {
  constructor(model, ids = []) {
    this.model = model;
    this.ids = [];
    this.logits = null;
    this.restart(ids.slice(-model.T));
    this.ids = [...ids];
  }

  restart(window) {
    this.state = this.model.begin();
    this.window = [];
    for (const id of window) this.read(id);
  }

  read(id) {
    this.logits = this.model.step(this.state, id);
    this.window.push(id);
  }

  /**
   * Adds one token. If the window is full, a model with a cache first drops the older half, as
   * `chunked` does in generation.py; a model without a cache drops only the oldest token.
   */
  push(id) {
    const { model } = this;
    if (!model.isBigram && this.state.length === model.T) {
      const kept = model.hasCache ? Math.floor(model.T / 2) : model.T - 1;
      this.restart(kept ? this.window.slice(-kept) : []);
    }
    if (model.isBigram) this.window = []; // it needs only the last token
    this.read(id);
    this.ids.push(id);
  }
}
