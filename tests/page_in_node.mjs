// Runs the worker's source of built pages in Node, without a browser.
//
// Standard input is JSON: a list of {page, calls}, each call [name, argument]. The results come in
// the same order, as JSON; typed arrays as lists.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const element = (page, id) => page.match(new RegExp(`id="${id}">([^]*?)</script>`))[1];
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);

function answers({ page: path, calls }) {
  const page = readFileSync(path, "utf8");
  const context = { atob, performance, self: {}, console };
  context.self.postMessage = (message) => (context.answer = message);
  vm.runInNewContext(element(page, "worker"), context);
  const call = (name, argument) => {
    context.self.onmessage({ data: { number: 0, name, argument } });
    if (context.answer.error) throw new Error(`${name}: ${context.answer.error}`);
    return context.answer.result;
  };
  call("open", { stored: JSON.parse(element(page, "data")), base64: element(page, "weights") });
  return calls.map(([name, argument]) => call(name, argument));
}

const asked = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(asked.map(answers), plain));
