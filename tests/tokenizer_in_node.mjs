// Encodes and decodes with the page's tokenizers, in Node.
//
// Standard input is JSON: {stored: tokenizer.json, texts, ids}. The answer is JSON: the ids of each
// text and, of each list of ids, its text and the text that a stream of them shows.

import { readFileSync } from "node:fs";
import { makeTokenizer } from "../gptjax/page/tokenizer.mjs";

const { stored, texts, ids } = JSON.parse(readFileSync(0, "utf8"));
const tokenizer = makeTokenizer(stored);
const streamed = (list) => {
  const textOf = tokenizer.stream();
  return list.map((id) => textOf(id)).join("");
};
process.stdout.write(
  JSON.stringify({
    encoded: texts.map((text) => tokenizer.encode(text)),
    decoded: ids.map((list) => tokenizer.decode(list)),
    streamed: ids.map(streamed),
    pieces: ids.map((list) => list.map((id) => tokenizer.piece(id))),
    startId: tokenizer.startId,
  }),
);
