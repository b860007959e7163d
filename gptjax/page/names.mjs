// The names of the model's parts, for turning them off.

/** The name of a head: its layer and its number, both from 0. */
export const headName = (layer, head) => `${layer}.${head}`;

/** The name of a part of a block: `attention` or `feedforward`. */
export const partName = (layer, part) => `${layer}.${part}`;
