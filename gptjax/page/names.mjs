// How parts of the model are called where they are turned off.

/** A head: layer and number, both from 0. */
export const headName = (layer, head) => `${layer}.${head}`;

/** A whole part of a block: `attention` or `feedforward`. */
export const partName = (layer, part) => `${layer}.${part}`;
