// The page's end of the worker: calls that return promises.

/** Starts the worker with the model; `call(name, argument)` answers when the worker has. */
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
  // The texts are no longer needed, and the weights' is the largest thing on the page.
  opened.finally(() => {
    URL.revokeObjectURL(address);
    document.getElementById("weights").remove();
  });
  return { call, opened, stored };
}

/** Runs the newest of some calls only: while one is under way, all but the last are left out. */
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
