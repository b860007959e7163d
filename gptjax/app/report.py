"""Shows a run to the user: a display on a terminal, plain lines elsewhere, and loss.png."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gptjax.app.pictures import matplotlib_defaults, new_figure, save_png
from gptjax.config import RunConfig
from gptjax.errors import one_line
from gptjax.loss import bits_per_byte
from gptjax.store import runs
from gptjax.store.metrics import Thinned, read_metrics
from gptjax.store.samples import SamplesLog

# Seconds between plain lines if the output is not a terminal.
PLAIN_EVERY = 5.0


def make_console(stream: TextIO, **options: Any) -> Console:
    """A console that draws only on a terminal, even if FORCE_COLOR or the like is set.

    With one of those variables, Rich would treat a file as a terminal and fill it with cursor
    movements.
    """
    is_terminal = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    kind: dict[str, Any] = {"force_terminal": is_terminal, "force_interactive": is_terminal}
    return Console(file=stream, force_jupyter=False, **plain, **kind, **options)


@contextlib.contextmanager
def only_shown(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Turns any error in the block into a warning, because the block only displays the run."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        warn(f"{what} cannot be shown ({reason}); the run continues without it")


class Report:
    """Shows a run's progress, on a terminal or as lines. A context manager.

    No error in this class may end the run. It warns once about each kind of failure.
    """

    def __init__(
        self,
        path: Path,
        run_config: RunConfig,
        sample: Callable[[Any], str],
        stream: TextIO,
        warn: Callable[[str], None],
        step: int = 0,
    ) -> None:
        self._path = path
        self._config = run_config
        self._sample = sample
        self._samples = SamplesLog(path / runs.SAMPLES, step)
        self._warn = warn
        self._is_new, self._has_told_time = step == 0, False
        self._failed: set[str] = set()
        self._console = make_console(stream)
        self._last_plain = -math.inf
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "compiling", total=run_config.train.max_iters, completed=step
            )

    def __enter__(self) -> "Report":
        if self._bar is not None:
            with self._showing("the progress"):
                self._bar.start()
                self._console.show_cursor(True)  # a kill must not leave the cursor hidden
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with self._showing("the progress"):
                self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays on the terminal."""
        self._console.print(text, soft_wrap=True)

    def stepped(self, line: dict[str, Any]) -> None:
        """Moves the bar, or prints a line every few seconds."""
        with self._showing("the progress"):
            if not self._has_told_time and "tokens_per_second" in line:
                self._has_told_time = True
                self._tell_time(line)
            if self._bar is not None:
                description = f"{_loss(line)}  {_rate(line)}"
                self._bar.update(self._task, completed=line["step"], description=description)
            elif line["step"] == 1 or time.monotonic() - self._last_plain >= PLAIN_EVERY:
                self._last_plain = time.monotonic()
                self.say(self._plain(line))

    def evaluated(self, line: dict[str, Any], params: Any) -> None:
        """Prints the losses, prints and saves a short sample, and draws loss.png."""
        with self._showing("the progress"):
            if self._bar is not None:
                self._bar.update(self._task, completed=line["step"])
            self.say(
                f"{self._plain(line)}  val loss {line['val_loss']:.4f}"
                f" ({line['val_bits_per_byte']:.3f} bits per byte)"
            )
        with self._showing("a sample"):
            text = self._sample(params)
            self.say("\n".join(f"    | {part}" for part in text.splitlines()))
            self._samples.add(line["step"], text)
        with self._showing("the picture"):
            draw_losses(self._path)

    def _showing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return only_shown(what, partial(self._warn_once, what))

    def _warn_once(self, what: str, line: str) -> None:
        if what not in self._failed:
            self._failed.add(what)
            self._warn(line)

    def _tell_time(self, line: dict[str, Any]) -> None:
        """Prints how long the run will take at the measured speed, and how to make it shorter."""
        steps = self._config.train.max_iters - line["step"]
        if steps:
            advice = "; for a shorter run, use --max-iters N or --budget-minutes M"
            shorter = advice if self._is_new else ""
            self.say(
                f"at this speed, the remaining {steps:,} steps take {duration(self._left(line))}, "
                f"plus evaluations{shorter}"
            )

    def _left(self, line: dict[str, Any]) -> float:
        """Seconds until the last step."""
        tokens = (self._config.train.max_iters - line["step"]) * self._config.tokens_per_update
        return tokens / line["tokens_per_second"]

    def _plain(self, line: dict[str, Any]) -> str:
        total = self._config.train.max_iters
        left = ""
        if "tokens_per_second" in line:
            left = f"  {_rate(line)}  {duration(self._left(line))} left"
        return f"step {line['step']:>{len(str(total))}}/{total}  {_loss(line)}{left}"


@matplotlib_defaults()
def draw_losses(path: Path) -> None:
    """Draws loss.png of the run at `path` from its metrics.jsonl."""
    train, val = Thinned(), Thinned()
    bits = None  # bits per byte for one nat per token
    for line in read_metrics(path / runs.METRICS):
        if "train_loss" in line:
            train.add(line["step"], line["train_loss"])
        if "val_loss" in line:
            val.add(line["step"], line["val_loss"])
            if line["val_loss"] > 0:
                bits = line.get("val_bits_per_byte", 0) / line["val_loss"]
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    if train.points:
        axes.plot(
            *zip(*train.points, strict=True),
            color="tab:blue",
            lw=1,
            alpha=0.8,
            label="training batch",
        )
    if val.points:
        axes.plot(
            *zip(*val.points, strict=True),
            color="tab:red",
            marker="o",
            ms=4,
            label="validation split",
        )
        step, loss = min(val.points, key=lambda point: point[1])
        axes.annotate(
            f"{loss:.3f}", (step, loss), xytext=(0, 8), textcoords="offset points", ha="center"
        )
    axes.set_xlabel("step (optimizer updates)")
    axes.set_ylabel("loss (nats per token)")
    if bits:
        other = axes.secondary_yaxis("right", functions=(lambda y: y * bits, lambda y: y / bits))
        other.set_ylabel("bits per byte of the validation split")
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path / runs.PICTURE, dpi=120)


def loss_text(nats: float, bytes_per_token: float) -> str:
    """Formats a loss in nats per token and in bits per byte."""
    return f"{nats:.4f} nats per token ({bits_per_byte(nats, bytes_per_token):.3f} bits per byte)"


def duration(seconds: float) -> str:
    """Formats seconds for reading: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _loss(line: dict[str, Any]) -> str:
    """Formats the training loss, and the number of updates skipped because they were not finite."""
    loss = f"loss {line['train_loss']:.4f}" if "train_loss" in line else "step skipped"
    return loss + (f"  ({line['skipped']} skipped so far)" if "skipped" in line else "")


def _rate(line: dict[str, Any]) -> str:
    return f"{line['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in line else ""
