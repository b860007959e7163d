// Reads the parameters of a run from the text in the page.

/** Decodes base64. */
export function fromBase64(text) {
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  const piece = 2 ** 16; // characters decoded at once, a multiple of 4
  let at = 0;
  for (let start = 0; start < text.length; start += piece) {
    const decoded = atob(text.slice(start, start + piece));
    for (let i = 0; i < decoded.length; i++) bytes[at++] = decoded.charCodeAt(i);
  }
  return bytes.subarray(0, at);
}

/** Converts a float16: sign, 5 bits of exponent, 10 of fraction. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * 2 ** -14 * (fraction / 1024);
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024); // the page contains no infinities
}

/**
 * Tensors by path.
 *
 * @param {{path: string, shape: number[]}[]} list in the order of the bytes.
 * @param {string} dtype float16 or float32, little endian.
 */
export function readTensors(list, dtype, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const halves =
    dtype === "float16" ? Float32Array.from({ length: 65536 }, (_, i) => half(i)) : null;
  const tensors = new Map();
  let at = 0;
  for (const { path, shape } of list) {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      data[i] = halves ? halves[view.getUint16(at, true)] : view.getFloat32(at, true);
      at += halves ? 2 : 4;
    }
    tensors.set(path, { shape, data });
  }
  return tensors;
}
