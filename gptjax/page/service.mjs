// The page's side of the worker: calls that return promises.

/** Starts the worker with the model. `call(name, argument)` returns a promise of its answer. */
export function startService() {
  const text = (id) => document.getElementById(id).textContent;
  const address = URL.createObjectURL(new Blob([text("worker")], { type: "text/javascript" }));
  const worker = new Worker(address);
  const waiting = new Map();
  let count = 0;

  function call(name, argument = {}) {
    return new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject });
      worker.postMessage({ number: count, name, argument });
    });
  }

  worker.onmessage = ({ data: { number, result, error } }) => {
    const { resolve, reject } = waiting.get(number);
    waiting.delete(number);
    if (error) reject(new Error(error));
    else resolve(result);
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message));
    waiting.clear();
  };
  const stored = JSON.parse(text("data"));
  const { config, tensors, dtype } = stored;
  const opened = call("open", { stored: { config, tensors, dtype }, base64: text("weights") });
  // Free the text of the weights, which is most of the page.
  opened.finally(() => {
    URL.revokeObjectURL(address);
    document.getElementById("weights").remove();
  });
  return { call, opened, stored };
}

/** Runs one call at a time. Of the calls made meanwhile, it runs only the newest. */
export function newestOnly(run) {
  let busy = false;
  let next = null;
  return async function ask(...argument) {
    if (busy) {
      next = argument;
      return;
    }
    busy = true;
    try {
      await run(...argument);
    } finally {
      busy = false;
      if (next) {
        const waiting = next;
        next = null;
        ask(...waiting);
      }
    }
  };
}
