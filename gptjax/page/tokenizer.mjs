// Converts text to ids and back, like the tokenizers in Python.
//
// Each tokenizer has `encode(text)`, which returns the ids and the characters that have no id;
// `decode(ids)`; `piece(id)`, a token's text for labels; `stream()`, which returns a function that
// takes the ids of a growing text and returns the text that each completes; `unit`, the name of a
// token; and `startId`.

/** One id for each character, in sorted order. */
class CharTokenizer {
  constructor({ characters }) {
    this.characters = [...characters]; // by code point
    this.ids = new Map(this.characters.map((character, id) => [character, id]));
    this.unit = "character";
    this.startId = Math.max(0, this.characters.indexOf("\n"));
  }

  encode(text) {
    const ids = [];
    const unknown = [];
    for (const character of text) {
      const id = this.ids.get(character);
      if (id === undefined) unknown.push(character);
      else ids.push(id);
    }
    return { ids, unknown };
  }

  decode(ids) {
    return ids.map((id) => this.characters[id]).join("");
  }

  piece(id) {
    return this.characters[id];
  }

  stream() {
    return (id) => this.characters[id];
  }
}

const END_OF_TEXT = "<|endoftext|>";
// Keep a byte order mark as a character, as Python does.
const utf8 = (options) => new TextDecoder("utf-8", { ignoreBOM: true, ...options });

/** The base of byte-level tokenizers: `bytes[id]`, and `special`, the texts with one id. */
class ByteLevelTokenizer {
  constructor(bytes, special, startId) {
    this.bytes = bytes;
    this.special = special;
    this.startId = startId;
  }

  /** Like encode_prompt in Python: each special token in the text is one id. */
  encode(text) {
    const unknown = [...text].filter((character) => /^\p{Surrogate}$/u.test(character));
    if (unknown.length) return { ids: [], unknown };
    const names = [...this.special.keys()].sort((a, b) => b.length - a.length);
    const literal = names.map((name) => name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    const ids = text
      .split(new RegExp(`(${literal.join("|")})`))
      .flatMap((part, i) => (i % 2 ? [this.special.get(part)] : this.encodePlain(part)));
    return { ids, unknown };
  }

  decode(ids) {
    const parts = ids.map((id) => this.bytes[id]);
    const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of parts) {
      joined.set(part, at);
      at += part.length;
    }
    return utf8().decode(joined);
  }

  piece(id) {
    try {
      return utf8({ fatal: true }).decode(this.bytes[id]);
    } catch {
      // An incomplete character: show its bytes.
      return Array.from(this.bytes[id], (byte) => `‹${byte.toString(16)}›`).join("");
    }
  }

  stream() {
    const decoder = utf8();
    return (id) => decoder.decode(this.bytes[id], { stream: true });
  }
}

/** The 256 bytes of UTF-8, and an end-of-text id. */
class ByteTokenizer extends ByteLevelTokenizer {
  constructor({ start_id: startId }) {
    const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
    const end = new TextEncoder().encode(END_OF_TEXT);
    super([...bytes, end], new Map([[END_OF_TEXT, 256]]), startId);
    this.unit = "byte";
  }

  encodePlain(text) {
    return Array.from(new TextEncoder().encode(text));
  }
}

// GPT-2's words: a contraction; or letters, digits or other characters, with the space before them;
// or whitespace, except the last one before a word.
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The character that stands for each byte in a vocabulary, as in bpe.py. */
function byteCharacters() {
  const isShown = (x) => (x >= 33 && x <= 126) || (x >= 0xa1 && x <= 0xff && x !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, x) => String.fromCodePoint(isShown(x) ? x : next++));
}

/** Byte-level BPE: pairs of tokens are merged in the order in which they were learned. */
class BpeTokenizer extends ByteLevelTokenizer {
  constructor({ tokens, merges, special, start_id: startId }) {
    const characters = byteCharacters();
    const byteOf = new Map(characters.map((character, byte) => [character, byte]));
    const isSpecial = new Set(special);
    const bytes = tokens.map((token) =>
      isSpecial.has(token)
        ? new TextEncoder().encode(token)
        : Uint8Array.from(token, (character) => byteOf.get(character)),
    );
    const ids = new Map(tokens.map((token, id) => [token, id]));
    super(bytes, new Map(special.map((token) => [token, ids.get(token)])), startId);
    this.unit = "token";
    this.characters = characters;
    this.ids = ids;
    this.ranks = new Map(merges.map((merge, rank) => [merge, rank]));
    this.words = new Map(); // a cache: the ids of words seen so far
  }

  encodePlain(text) {
    return (text.match(WORDS) ?? []).flatMap((word) => this.encodeWord(word));
  }

  encodeWord(word) {
    const known = this.words.get(word);
    if (known) return known;
    let parts = Array.from(new TextEncoder().encode(word), (byte) => this.characters[byte]);
    while (parts.length > 1) {
      const ranks = parts
        .slice(1)
        .map((right, i) => this.ranks.get(`${parts[i]} ${right}`) ?? Infinity);
      const best = Math.min(...ranks);
      if (best === Infinity) break;
      const at = ranks.indexOf(best);
      parts = [...parts.slice(0, at), parts[at] + parts[at + 1], ...parts.slice(at + 2)];
    }
    const ids = parts.map((part) => this.ids.get(part));
    this.words.set(word, ids);
    return ids;
  }
}

const TOKENIZERS = {
  char: CharTokenizer,
  byte: ByteTokenizer,
  bpe: BpeTokenizer,
  gpt2: BpeTokenizer,
};

/** Makes the tokenizer that a run's tokenizer.json describes. */
export function makeTokenizer(stored) {
  return new TOKENIZERS[stored.type](stored);
}
