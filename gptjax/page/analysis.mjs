// Computes what the views show: attention, losses, the stream by depth, one token's numbers.

import { softmax } from "./layers.mjs";
import { likeliest, lossOf, probabilities } from "./sampling.mjs";

/** How many of the likeliest tokens a view shows. */
export const SHOWN = 10;

/** Calls `visit(t, logits)` for each position of a text, which must fit block_size. */
function read(model, ids, options, visit = () => {}) {
  const state = model.begin();
  ids.forEach((id, t) => {
    if (model.isBigram) state.length = 0;
    visit(t, model.step(state, id, options));
  });
}

/**
 * Returns each head's weights over a text (attention[layer][head] has T rows of T weights), the
 * losses of all tokens except the first, and the likeliest tokens after each.
 */
export function look(model, ids, off) {
  const T = ids.length;
  const attention = model.layers.map(({ H }) =>
    Array.from({ length: H }, () => new Float32Array(T * T)),
  );
  const losses = new Float32Array(Math.max(0, T - 1));
  const next = [];
  let now = 0;
  const trace = {
    head: (layer, head, { weights }) => attention[layer][head].set(weights, now * T),
  };
  read(model, ids, { off, trace: model.isBigram ? null : trace }, (t, logits) => {
    if (t + 1 < T) losses[t] = lossOf(logits, ids[t + 1]);
    next.push(likeliest(probabilities(logits), SHOWN));
    now = t + 1;
  });
  return { attention, losses, next };
}

/** The mean loss of a text, in nats per token; NaN for a text of one token. */
export function meanLoss(model, ids, off) {
  let sum = 0;
  read(model, ids, { off }, (t, logits) => {
    if (t + 1 < ids.length) sum += lossOf(logits, ids[t + 1]);
  });
  return sum / (ids.length - 1);
}

/**
 * Where each head looks: the share of its weights on the position itself, on one to three positions
 * before, on the last space, on the line's first character, on the last occurrence of the same
 * token, and on the token after that (an induction head, Olsson et al.). Each share is a mean over
 * the positions for which such a place exists.
 */
export function habits(attention, ids, pieces) {
  const T = ids.length;
  const targets = targetsOf(ids, pieces);
  return attention.map((heads) =>
    heads.map((weights) => {
      const shares = {};
      for (const [name, place] of Object.entries(targets)) {
        let sum = 0;
        let count = 0;
        // Skip the first positions: they see so few tokens that their weights say little.
        for (let t = Math.min(4, T - 1); t < T; t++) {
          if (place[t] < 0) continue;
          sum += weights[t * T + place[t]];
          count++;
        }
        shares[name] = count ? sum / count : 0;
      }
      return shares;
    }),
  );
}

/** For each habit, the position that a head looks at from each position; -1 for none. */
function targetsOf(ids, pieces) {
  const places = { itself: [], before: [], twoBefore: [], threeBefore: [], space: [], line: [] };
  const targets = { ...places, same: [], afterSame: [] };
  const last = new Map();
  let space = -1;
  let line = 0;
  ids.forEach((id, t) => {
    targets.itself.push(t);
    targets.before.push(t - 1);
    targets.twoBefore.push(t - 2);
    targets.threeBefore.push(t - 3);
    targets.space.push(space < t - 1 ? space : -1); // otherwise it is `before`
    targets.line.push(line < t - 1 ? line : -1);
    const same = last.get(id) ?? -1;
    targets.same.push(same);
    targets.afterSame.push(same >= 0 && same + 1 < t - 1 ? same + 1 : -1);
    last.set(id, t);
    if (/^\s|\s$/u.test(pieces[t])) space = t;
    if (pieces[t].endsWith("\n")) line = t + 1;
  });
  return targets;
}

/** A vector's length. */
const norm = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

/**
 * The residual stream by depth, at each position: the prediction that the output layer reads from
 * it (the logit lens, nostalgebraist 2020), its norm, and the norms of what each part adds.
 */
export function follow(model, ids) {
  const positions = ids.map(() => ({ lens: [], stream: [], attention: [], feedforward: [] }));
  let now = 0;
  const trace = {
    stream: (_depth, x) => {
      const shares = probabilities(model.readout(x));
      const target = now + 1 < ids.length ? shares[ids[now + 1]] : null;
      positions[now].lens.push({ best: likeliest(shares, SHOWN), target });
      positions[now].stream.push(norm(x));
    },
    part: (_layer, name, x) => {
      if (name === "attention" || name === "feedforward") positions[now][name].push(norm(x));
    },
  };
  read(model, ids, { trace }, () => now++);
  return positions;
}

/** All numbers that the last token of `ids` passes through in one layer and one head. */
export function numbers(model, ids, layer, head) {
  const found = { parts: {}, keys: [], values: [] };
  let now = 0;
  const isLast = () => now === ids.length - 1;
  const trace = {
    numbers: true,
    embedded: (token, position, x) => {
      if (isLast()) Object.assign(found, { token: token.slice(), position, embedded: x.slice() });
    },
    head: (l, h, { q, k, v, scores, weights, output }) => {
      if (l !== layer || h !== head) return;
      found.keys.push(k);
      found.values.push(v);
      if (isLast()) Object.assign(found, { q, k, v, scores, weights, output });
    },
    part: (l, name, x) => {
      if (l === layer && isLast()) found.parts[name] = x.slice();
    },
    stream: (depth, x) => {
      if (!isLast()) return;
      if (depth === layer) found.before = x.slice();
      if (depth === layer + 1) found.after = x.slice();
      if (depth === model.layers.length) found.last = x.slice();
    },
  };
  read(model, ids, { trace }, (_t, logits) => {
    if (isLast()) {
      found.logits = logits;
      found.probabilities = softmax(Float32Array.from(logits));
    }
    now++;
  });
  if (model.ln_f) found.normed = model.ln_f.apply(found.last);
  return found;
}
