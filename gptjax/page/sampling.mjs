// From logits to the next token, in the order of sampling.py: temperature, top-k, top-p, min-p.

import { softmax } from "./layers.mjs";

/** Random numbers in [0, 1) from a seed (sfc32 by Chris Doty-Humphrey, seeded by splitmix32). */
export class Random {
  constructor(seed) {
    let mixed = seed | 0;
    const word = () => {
      mixed = (mixed + 0x9e3779b9) | 0;
      let x = mixed ^ (mixed >>> 16);
      x = Math.imul(x, 0x21f0aaad);
      x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
      return (x ^ (x >>> 15)) | 0;
    };
    this.words = [word(), word(), word(), 1];
    for (let i = 0; i < 12; i++) this.next();
  }

  next() {
    let [a, b, c, count] = this.words;
    const sum = (((a + b) | 0) + count) | 0;
    count = (count + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    this.words = [a, b, c | 0, count];
    return (sum >>> 0) / 2 ** 32;
  }
}

/** The id of the largest logit; in a tie, the first. */
export function argmax(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** Probabilities of the next token under the model itself. */
export const probabilities = (logits) => softmax(Float32Array.from(logits));

/** The loss of one token, in nats: minus the logarithm of its probability. */
export function lossOf(logits, id) {
  const most = logits[argmax(logits)];
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return Math.log(sum) + most - logits[id];
}

/** The n largest probabilities, largest first; in a tie, the lower id first. */
export function likeliest(values, n) {
  const found = [];
  for (let id = 0; id < values.length; id++) {
    if (found.length === n && values[id] <= found[n - 1].probability) continue;
    let place = found.length;
    while (place > 0 && found[place - 1].probability < values[id]) place--;
    found.splice(place, 0, { id, probability: values[id] });
    if (found.length > n) found.pop();
  }
  return found;
}

/** Draws a token, by a number in [0, 1), among those that the settings leave. */
export function draw(logits, { temperature, topK, topP, minP }, number) {
  if (temperature === 0) return argmax(logits);
  const most = logits[argmax(logits)];
  const below = Float32Array.from(logits, (logit) => (logit - most) / temperature);
  const isFiltered = topK < below.length || topP < 1 || minP > 0;
  let ids = Array.from(below.keys());
  if (isFiltered) {
    ids.sort((a, b) => logits[b] - logits[a] || a - b);
    ids = ids.slice(0, topK);
  }
  const shares = softmax(Float32Array.from(ids, (id) => below[id]));
  let count = ids.length;
  if (isFiltered) {
    let before = shares[0];
    count = 1; // the likeliest always stays
    while (
      count < ids.length &&
      (before < topP || topP === 1) &&
      shares[count] >= minP * shares[0]
    ) {
      before += shares[count++];
    }
  }
  let total = 0;
  for (let i = 0; i < count; i++) total += shares[i];
  let left = number * total;
  for (let i = 0; i < count; i++) {
    left -= shares[i];
    if (left < 0) return ids[i];
  }
  return ids[count - 1];
}
