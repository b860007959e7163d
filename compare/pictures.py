"""The page's two pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from compare.contestants import CONTESTANTS
from compare.equality import REFERENCE, TOLERANCES, YARDSTICK
from compare.figures import MEASURES, show, spreads, title
from gptjax.files import write_whole

COLOURS = {
    "linen": "tab:blue",
    "nnx": "tab:orange",
    "plain": "tab:cyan",
    "torch": "tab:red",
    "torch-compile": "tab:pink",
    YARDSTICK: "black",
}
STYLES = {"linen": "-", "nnx": "--", "plain": "-.", "torch": ":", YARDSTICK: "-"}


def draw_measures(path: Path, results: dict[str, Any]) -> None:
    """One panel a measure: bars are medians, lines the spreads."""
    from matplotlib.figure import Figure  # half a second, so only where a picture is drawn

    shown = [key for key in MEASURES if key != "tokens" and spreads(results["measures"], key)]
    names = [name for name in CONTESTANTS if name in results["measures"]]
    columns = 3
    rows = -(-len(shown) // columns)
    canvas = Figure(figsize=(10, 1.9 * rows), layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False)
    for axes, key in zip(grid.flat, shown, strict=False):
        found = spreads(results["measures"], key)
        for at, name in enumerate(names):
            if name not in found:
                continue
            one = found[name]
            axes.barh(at, one.median, color=COLOURS[name], alpha=0.7)
            axes.plot([one.low, one.high], [at, at], color="black", lw=2)
            axes.annotate(
                f" {show(one.median)}", (max(one.high, one.median), at), va="center", fontsize=8
            )
        axes.set_yticks(range(len(names)), [title(name) for name in names], fontsize=8)
        axes.invert_yaxis()
        measure = MEASURES[key]
        better = "more is better" if measure.more_is_better else "less is better"
        name = measure.title.split(":")[0].removesuffix(" of start-up and training")
        axes.set_title(f"{name} ({measure.unit})\n{better}", fontsize=8, loc="left")
        axes.margins(x=0.25)
        axes.set_xlim(left=0)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    _write(path, canvas)


def draw_losses(path: Path, results: dict[str, Any]) -> None:
    """The losses over the same batches, and how far each is from this project's."""
    from matplotlib.figure import Figure

    proofs = results["equality"]
    canvas = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = canvas.subplots(1, 2)
    ours = np.array(proofs[REFERENCE]["curve"])
    for name, proof in proofs.items():
        curve = np.array(proof["curve"])
        label = name if name == YARDSTICK else title(name)
        if name != YARDSTICK:
            left.plot(curve, STYLES[name], color=COLOURS[name], label=label)
        if name != REFERENCE:
            apart = np.maximum(np.abs(curve - ours), 1e-8)  # equal ones have a place on the axis
            right.plot(apart, STYLES[name], color=COLOURS[name], label=label, lw=1)
    right.axhline(TOLERANCES["losses"], color="grey", lw=1)
    right.annotate("allowed", (0, TOLERANCES["losses"]), xytext=(2, 3), textcoords="offset points")
    left.set_ylabel("loss (nats per token)")
    right.set_ylabel("difference from Linen (nats)")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("training step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _write(path, canvas)


def _write(path: Path, canvas: Any) -> None:
    picture = io.BytesIO()
    canvas.savefig(picture, format="png", dpi=100)
    write_whole(path, picture.getvalue())
