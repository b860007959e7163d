"""Runs the updates of a run on demand in a separate process, on the text in its config.json.

    python -m benchmarks.updates_worker CONFIG.json DATA_DIR

Its dispatches are those of `gptjax.app.loop`: from one log line to the next, and one dispatch ahead
of the metrics that it reads.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from compare.measuring.worker import answer, peak_memory
from gptjax.app.compiling import compile_and_initialize
from gptjax.backends.devices import describe, platform
from gptjax.backends.execution import suited
from gptjax.backends.feeding import feed
from gptjax.config import RunConfig
from gptjax.model import num_params
from gptjax.store import runs
from gptjax.text.splitting import Texts, read_texts, with_text
from gptjax.training import init_state, make_keys, make_train_loop


def main(config: Path, data_dir: Path) -> None:
    """Reads and describes the text, then trains until its input ends."""
    run_config = RunConfig.from_dict(json.loads(config.read_text()))
    texts = read_texts(run_config, data_dir, lambda _: None)
    run_config = with_text(run_config, texts)
    updates = Updates(run_config, texts)
    answer(
        device=describe(),
        vocab_size=run_config.model.vocab_size,
        parameters=num_params(runs.abstract_params(runs.make_model(run_config))),
        tokens=len(texts.train) + len(texts.val),
        train_tokens=len(texts.train),
        tokens_per_update=run_config.tokens_per_update,
        bytes_per_token=texts.bytes_per_token[1],
    )
    for line in sys.stdin:
        answer(**updates.run(json.loads(line)["count"]), memory=peak_memory())


class Updates:
    """A run in training."""

    def __init__(self, run_config: RunConfig, texts: Texts) -> None:
        model = suited(runs.make_model(run_config), run_config, platform())
        self._interval = run_config.train.log_interval
        self._update = make_train_loop(model, run_config)
        self._keys = make_keys(run_config.seed)
        self._feed, _ = feed(run_config, None, (texts.train, texts.val))
        init = partial(init_state, model, run_config)
        self._state = compile_and_initialize(init, self._update, self._feed.at(0), self._keys)
        self._step = 0

    def run(self, count: int) -> dict[str, Any]:
        """Trains this many steps.

        Returns:
            `seconds` of one step; `waited`, seconds of it in which the host asked for its tokens;
            the last `loss`.
        """
        began, waited, end = time.perf_counter(), 0.0, self._step + count
        before = None
        while self._step < end:
            asked = time.perf_counter()
            tokens = self._feed.at(self._step)
            waited += time.perf_counter() - asked
            line = (self._step // self._interval + 1) * self._interval
            until = min(self._feed.reach(self._step), line, end)
            self._state, metrics = self._update(self._state, tokens, self._keys, until)
            if before is not None:
                before.last.loss.item()
            before, self._step = metrics, until
        assert before is not None
        loss = before.last.loss.item()
        seconds = time.perf_counter() - began
        return {"seconds": seconds / count, "waited": waited / count, "loss": loss}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
