"""Decodes tokens as they arrive, holding back text that the next token may change."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from gptjax.inference.decoding import ROOM, Drawn

LINE = "-" * 15
SECONDS_A_LOOK = 0.05
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """The part of a tokenizer that streaming uses."""

    start_id: int

    def decode(self, ids: Any) -> str: ...


class TextStream:
    """One sample's text.

    It holds back bytes that are not yet a whole character, and the beginning of a possible stop
    text. It removes the first stop text and everything after it.

    Attributes:
        done: a stop text was reached.
        tokens: the number of tokens in the text, including those of the stop text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        # Tokens that end within a character, and how many characters of their text were returned.
        self._open: list[int] = []
        self._used = 0
        self._held = ""
        self.done = False
        self.tokens = 0

    def feed(self, ids: Sequence[int]) -> str:
        """Adds tokens, and returns the text that can no longer change."""
        certain = ""
        for token in ids:
            if self.done:
                break
            self.tokens += 1
            certain += self._add(int(token))
        return certain

    def finish(self) -> str:
        """Returns the rest of the text after the last token."""
        broken = self._tokenizer.decode(self._open)[self._used :] if self._open else ""
        rest = self._held + broken if not self.done else ""
        self._open, self._used, self._held = [], 0, ""
        return rest

    def _add(self, token: int) -> str:
        self._held += self._decode(token)
        met = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if met:
            self.done = True
            certain, self._held = self._held[: min(met)], ""
            return certain
        held = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - held]
        self._held = self._held[len(self._held) - held :]
        return certain

    def _decode(self, token: int) -> str:
        """Returns the characters that a token completes. A token may end within a character.

        An incomplete character decodes to U+FFFD. A UTF-8 character has at most four bytes, so it
        began in one of the last three tokens. The next call decodes these again.
        """
        ids = [*self._open, token]
        text = self._tokenizer.decode(ids)
        complete = len(text) - text.endswith(REPLACEMENT)
        new = text[self._used : complete]
        self._open, self._used = [], 0
        if complete < len(text):
            self._open = ids[-3:]
            self._used = len(self._tokenizer.decode(self._open)) - 1
        return new


def _overlap(text: str, stop: str) -> int:
    """The number of characters at the end of `text` with which `stop` begins."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0


class Pace:
    """Decides how many tokens to generate before showing them.

    If somebody watches, it starts with 1 and grows to what takes a twentieth of a second. If not,
    it is as many as fit.
    """

    def __init__(self, watched: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._watched = watched
        self._clock = clock
        self._count = 1
        self._asked: float | None = None

    def __call__(self) -> int:
        if not self._watched:
            return ROOM
        now = self._clock()
        if self._asked is not None:
            wanted = round(self._count * SECONDS_A_LOOK / max(now - self._asked, 1e-6))
            self._count = min(max(wanted, 1), 2 * self._count, ROOM)
        self._asked = now
        return self._count


class SampleWriter:
    """Writes samples in order, and streams the first unfinished one while it is generated.

    Args:
        out: receives only the text: for each sample its prompt, its text and a line of dashes.
        keep_logprobs: collect each token's log probability in `logprobs`.
    """

    def __init__(
        self,
        out: TextIO,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        keep_logprobs: bool = False,
    ) -> None:
        self._out, self._tokenizer, self._stops = out, tokenizer, stops
        self._keep_logprobs = keep_logprobs
        self._samples: list[_Sample] = []
        self.logprobs: list[dict[str, Any]] = []

    def begin(self, batch: Sequence[tuple[int, int, str]]) -> None:
        """Starts a batch. Each row has the prompt's number, the sample's number and the prompt."""
        self._samples = [
            _Sample(row, p, s, TextStream(self._tokenizer, self._stops), [prompt])
            for row, (p, s, prompt) in enumerate(batch)
        ]
        self._write()

    def feed(self, drawn: Drawn) -> bool:
        """Adds the drawn tokens; returns whether all rows have reached a stop text."""
        for sample in self._samples:  # samples that are not completely written yet
            before = sample.text.tokens
            sample.unwritten.append(sample.text.feed(drawn.ids_BK[sample.row]))
            if self._keep_logprobs:
                count = sample.text.tokens - before
                self.logprobs += [self._logprob(sample, before, drawn, k) for k in range(count)]
        self._write()
        return all(sample.text.done for sample in self._samples)

    def end(self) -> None:
        """Writes the text of the batch that was held back."""
        for sample in self._samples:
            sample.unwritten.append(sample.text.finish())
            sample.text.done = True
        self._write()

    def _write(self) -> None:
        while self._samples:
            sample = self._samples[0]
            self._out.write("".join(sample.unwritten))
            sample.unwritten = []
            if not sample.text.done:
                break
            self._out.write(f"\n{LINE}\n")
            self._samples = self._samples[1:]
        self._out.flush()

    def _logprob(self, sample: "_Sample", before: int, drawn: Drawn, k: int) -> Any:
        row = sample.row

        def token(id: Any, logprob: Any) -> dict[str, Any]:
            text = self._tokenizer.decode([int(id)])
            return {"id": int(id), "token": text, "logprob": round(float(logprob), 6)}

        best = zip(drawn.best_ids_BKN[row, k], drawn.best_logprobs_BKN[row, k], strict=True)
        return {
            "prompt": sample.prompt,
            "sample": sample.number,
            "position": before + k,
            **token(drawn.ids_BK[row, k], drawn.logprobs_BK[row, k]),
            "alternatives": [token(*pair) for pair in best],
        }


@dataclass
class _Sample:
    row: int
    prompt: int
    number: int
    text: TextStream
    unwritten: list[str]
