// The layers of a model, for one token at a time. Sums are float64; arrays are float32.

import { headName, partName } from "./names.mjs";

const EPSILON = 1e-5; // LayerNorm's, as in layers.py

/** Matrix (in, out), stored by output: y[o] = sum of x[i] * rows[o * in + i] + bias[o]. */
export class Dense {
  constructor(rows, inputs, outputs, bias) {
    this.rows = rows;
    this.inputs = inputs;
    this.outputs = outputs;
    this.bias = bias;
  }

  apply(x, y = new Float32Array(this.outputs)) {
    const { rows, inputs, outputs, bias } = this;
    const whole = inputs - (inputs % 4);
    for (let o = 0; o < outputs; o++) {
      const start = o * inputs;
      // Four sums, so that an addition does not wait for the previous one.
      let a = 0;
      let b = 0;
      let c = 0;
      let d = 0;
      for (let i = 0; i < whole; i += 4) {
        a += rows[start + i] * x[i];
        b += rows[start + i + 1] * x[i + 1];
        c += rows[start + i + 2] * x[i + 2];
        d += rows[start + i + 3] * x[i + 3];
      }
      for (let i = whole; i < inputs; i++) a += rows[start + i] * x[i];
      y[o] = a + b + (c + d) + (bias ? bias[o] : 0);
    }
    return y;
  }
}

/** A Dense from a kernel (in, out), as Flax stores it. */
export function transposed(kernel, inputs, outputs, bias) {
  const rows = new Float32Array(kernel.length);
  for (let i = 0; i < inputs; i++) {
    for (let o = 0; o < outputs; o++) rows[o * inputs + i] = kernel[i * outputs + o];
  }
  return new Dense(rows, inputs, outputs, bias);
}

/** LayerNorm: zero mean and unit variance, then a learned scale and an optional bias. */
export class LayerNorm {
  constructor(scale, bias) {
    this.scale = scale;
    this.bias = bias;
  }

  apply(x) {
    const y = new Float32Array(x.length);
    let mean = 0;
    for (const value of x) mean += value;
    mean /= x.length;
    let variance = 0;
    for (const value of x) variance += (value - mean) ** 2;
    const factor = 1 / Math.sqrt(variance / x.length + EPSILON);
    for (let i = 0; i < x.length; i++) {
      y[i] = (x[i] - mean) * factor * this.scale[i] + (this.bias ? this.bias[i] : 0);
    }
    return y;
  }
}

/** The error function, to 1.2e-7 (Numerical Recipes' Chebyshev fit of erfc). */
function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const terms = [
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
    0.37409196, 1.00002368, -1.26551223,
  ];
  const tail = t * Math.exp(terms.reduce((sum, term) => sum * t + term, 0) - x * x);
  return x >= 0 ? 1 - tail : tail - 1;
}

export const ACTIVATIONS = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** Replaces scores by weights that add up to 1. */
export function softmax(scores) {
  let most = -Infinity;
  for (const score of scores) most = Math.max(most, score);
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - most);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

export function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
  return x;
}

/** Heads side by side, and the parts after them. All parts except the heads may be null. */
export class Layer {
  constructor(parts, model) {
    Object.assign(this, parts);
    this.D = parts.query[0].outputs;
    this.H = parts.query.length;
    this.T = model.T;
  }

  /** The outputs of all heads for the newest token, side by side: (H * D). */
  heads(h, cache, t, off, trace) {
    const { H, D } = this;
    const width = H * D;
    const y = new Float32Array(width);
    const at = t * width;
    for (let head = 0; head < H; head++) {
      const q = this.query[head].apply(h);
      const k = this.key[head].apply(h, cache.keys.subarray(at + head * D, at + head * D + D));
      const v = this.value[head].apply(h, cache.values.subarray(at + head * D, at + head * D + D));
      // A score for this position and each earlier one. Here the causal mask is simply the end of
      // the loop.
      const scores = new Float32Array(t + 1);
      for (let s = 0; s <= t; s++) {
        let score = 0;
        const start = s * width + head * D;
        for (let d = 0; d < D; d++) score += q[d] * cache.keys[start + d];
        scores[s] = score / Math.sqrt(D);
      }
      const raw = trace?.numbers ? scores.slice() : null;
      const weights = softmax(scores);
      for (let s = 0; s <= t; s++) {
        const start = s * width + head * D;
        for (let d = 0; d < D; d++) y[head * D + d] += weights[s] * cache.values[start + d];
      }
      const output = y.slice(head * D, head * D + D);
      if (off?.has(headName(this.index, head))) y.fill(0, head * D, head * D + D);
      trace?.head?.(this.index, head, {
        ...{ q, k: k.slice(), v: v.slice(), scores: raw, weights, output },
      });
    }
    return y;
  }

  /** The stream after this layer. */
  apply(x, cache, t, off, trace) {
    const note = (name, value) => trace?.part?.(this.index, name, value);
    const h = this.ln_1 ? this.ln_1.apply(x) : x;
    note("ln_1", h);
    const gathered = this.heads(h, cache, t, off, trace);
    note("heads", gathered);
    const attention = this.proj ? this.proj.apply(gathered) : gathered;
    note("attention", attention);
    if (this.residual && off?.has(partName(this.index, "attention"))) attention.fill(0);
    x = this.residual ? add(attention.slice(), x) : attention;
    note("middle", x);
    if (!this.fc) return x;
    const wide = this.fc.apply(this.ln_2 ? this.ln_2.apply(x) : x);
    note("fc", wide.slice());
    for (let i = 0; i < wide.length; i++) wide[i] = this.activation(wide[i]);
    note("activation", wide);
    const thought = this.out ? this.out.apply(wide) : wide;
    note("feedforward", thought);
    if (this.residual && off?.has(partName(this.index, "feedforward"))) thought.fill(0);
    return this.residual ? add(thought.slice(), x) : thought;
  }
}
