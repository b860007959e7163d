"""Writes the ladder's results: ladder.json, ladder.md, ladder.png, and a file to resume from."""

import dataclasses
from pathlib import Path
from typing import Any

from gptjax.app.pictures import matplotlib_defaults, new_figure, save_png
from gptjax.errors import InputError
from gptjax.files import as_json, read_json
from gptjax.lecture.ladder import ALL, LADDER, Climbed
from gptjax.text.outputs import write_named
from gptjax.text.shell import quoted
from gptjax.version import __version__

JSON, PAGE, PICTURE = "ladder.json", "ladder.md", "ladder.png"
# The rungs that an unfinished climb has trained. A resume reads the file; the end removes it.
UNFINISHED = "ladder.unfinished.json"
LINE = 56


@dataclasses.dataclass(frozen=True)
class Climb:
    """The settings that determine the losses of a climb, which trains all chosen rungs."""

    data: str
    data_sha256: str
    seeds: list[int]
    max_iters: int | None

    def record(self) -> dict[str, Any]:
        """The settings as stored, with the version: rungs of another version are not reused."""
        return {"version": __version__, **dataclasses.asdict(self)}


def save_unfinished(out: Path, climb: Climb, done: list[Climbed]) -> None:
    """Saves the rungs that are finished."""
    write_named(out / UNFINISHED, _record(climb, done))


def load_unfinished(out: Path, climb: Climb) -> list[Climbed]:
    """The rungs that an interrupted climb with the same settings has finished."""
    if not (out / UNFINISHED).is_file():
        return []
    try:
        stored = read_json(out / UNFINISHED, links=True)
        rungs = [Climbed(**rung) for rung in stored.pop("rungs")]
    except (InputError, KeyError, TypeError):
        return []  # damaged, or from elsewhere: train the rungs again
    return rungs if stored == climb.record() else []


def write_results(out: Path, climb: Climb, done: list[Climbed]) -> None:
    """Writes ladder.json and ladder.md, then removes the file of the unfinished climb."""
    write_named(out / JSON, _record(climb, done))
    write_named(out / PAGE, page(climb, done))
    (out / UNFINISHED).unlink(missing_ok=True)


def _record(climb: Climb, done: list[Climbed]) -> str:
    return as_json(climb.record() | {"rungs": [rung._asdict() for rung in done]})


def mean(losses: list[float]) -> float:
    """The arithmetic mean."""
    return sum(losses) / len(losses)


def spread(losses: list[float]) -> str:
    """Formats the mean, and the lowest to the highest seed: `2.413 (2.398 to 2.424)`."""
    if len(losses) == 1:
        return f"{losses[0]:.3f}"
    return f"{mean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f})"


def figure(loss: float | None) -> str:
    """Formats the lecture's loss with the digits that the lecture gives."""
    return "" if loss is None else f"{loss:.2f}"


def sample_line(text: str) -> str:
    """Picks one line of a sample, the first that is long enough, and shortens it."""
    lines = [line.strip() for line in text.splitlines()]
    line = next((line for line in lines if len(line) >= LINE // 2), max(lines or [""], key=len))
    return line[:LINE]


def page(climb: Climb, done: list[Climbed]) -> str:
    """Returns ladder.md: the table, and the command that makes it."""
    minutes = sum(rung.seconds for rung in done) / 60
    arguments = f" --seeds {len(climb.seeds)}"
    if [rung.name for rung in done] != list(LADDER):
        arguments += f" --rungs {','.join(rung.name for rung in done)}"
    if climb.data != "shakespeare":
        arguments += f" --data {quoted(climb.data)}"
    if climb.max_iters is not None:
        arguments += f" --max-iters {climb.max_iters}"
    rows = "\n".join(_row(rung) for rung in done)
    return f"""# The lecture's ladder, climbed

Made by `python -m gptjax.lecture{arguments}` in {minutes:.1f} minutes, compilation included.
Losses are validation losses in nats per character: the mean over {len(climb.seeds)} seeds, then
the lowest and the highest seed. The *whole split* is every character of it once; *200 batches* is
the lecture's estimate, of as many random batches. [lecture.md](lecture.md) explains each rung.

| rung | adds | parameters | whole split | 200 batches | the lecture | seconds | a line of it |
|---|---|--:|---|---|--:|--:|---|
{rows}

![Validation loss by rung](ladder.png)
"""


def _row(rung: Climbed) -> str:
    line = sample_line(rung.sample).replace("|", "\\|").replace("`", "'")
    return (
        f"| {rung.name} | {ALL[rung.name].adds} | {rung.parameters:,} | {spread(rung.losses)} "
        f"| {spread(rung.estimates)} | {figure(rung.lecture)} | {rung.seconds:.0f} | `{line}` |"
    )


@matplotlib_defaults()
def draw(path: Path, done: list[Climbed]) -> None:
    """Draws every seed's loss and the lecture's figure, rung by rung."""
    canvas = new_figure(8, 4.2)
    axes = canvas.subplots()
    for at, rung in enumerate(done):
        first = at == 0
        axes.plot(
            [at] * len(rung.losses),
            rung.losses,
            "o",
            color="tab:blue",
            ms=5,
            alpha=0.6,
            label="one seed, whole validation split" if first else None,
        )
        if rung.lecture is not None:
            axes.plot(
                [at - 0.28, at + 0.28],
                [rung.lecture] * 2,
                color="tab:orange",
                lw=2,
                label="the lecture" if first else None,
            )
        axes.annotate(
            f"{mean(rung.losses):.3f}",
            (at, max([*rung.losses, rung.lecture or 0])),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
    names = [f"{rung.name}\n{rung.parameters:,}" for rung in done]
    axes.set_xticks(range(len(done)), names)
    axes.set_xlabel("rung, and its parameters")
    axes.set_ylabel("validation loss (nats per character)")
    axes.margins(y=0.15)
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    save_png(canvas, path, write=write_named)
