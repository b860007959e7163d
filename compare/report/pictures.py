"""Draws the page's two pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from compare.contestants import CONTESTANTS
from compare.figures import MEASURES, NOT_MEASURED, Spread, show, spreads, title
from compare.measuring.equality import REFERENCE, TOLERANCES, YARDSTICK
from gptjax.app.pictures import new_figure, save_png

COLOURS = {
    "linen": "tab:blue",
    "nnx": "tab:orange",
    "plain": "tab:cyan",
    "linen-tuned": "navy",
    "nnx-tuned": "saddlebrown",
    "plain-tuned": "teal",
    "torch": "tab:red",
    "torch-compile": "tab:pink",
    YARDSTICK: "black",
}
STYLES = {"linen": "-", "nnx": "--", "plain": "-.", "torch": ":", YARDSTICK: "-"}


def draw_measures(path: Path, results: dict[str, Any]) -> None:
    """Draws one panel for each measure: bars are medians, and lines are spreads."""
    shown = [key for key in MEASURES if key != "tokens" and spreads(results["measures"], key)]
    names = [name for name in CONTESTANTS if name in results["measures"]]
    columns = 3
    rows = max(1, -(-len(shown) // columns))
    figure = new_figure(10, (0.8 + 0.19 * len(names)) * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, key in zip(grid.flat, shown, strict=False):
        _bars(axes, key, names, spreads(results["measures"], key))
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    save_png(figure, path, dpi=100)


def _bars(axes: Any, key: str, names: list[str], found: dict[str, Spread]) -> None:
    for at, name in enumerate(names):
        if name not in found:
            axes.annotate(f" {NOT_MEASURED}", (0, at), va="center", fontsize=7, color="grey")
            continue
        one = found[name]
        axes.barh(at, one.median, color=COLOURS[name], alpha=0.7)
        axes.plot([one.low, one.high], [at, at], color="black", lw=2)
        axes.annotate(
            f" {show(one.median)}", (max(one.high, one.median), at), va="center", fontsize=8
        )
    axes.set_yticks(range(len(names)), [title(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    measure = MEASURES[key]
    better = "more is better" if measure.more_is_better else "less is better"
    name = measure.title.split(":")[0].removesuffix(" of start-up and training")
    name = name.replace("`", "")
    axes.set_title(f"{name}\n{measure.unit}, {better}", fontsize=8, loc="left")
    axes.margins(x=0.25)
    axes.locator_params(axis="x", nbins=5)  # more labels would touch each other
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_losses(path: Path, results: dict[str, Any]) -> None:
    """Draws the losses over the same batches, and their distance from Linen's."""
    proofs = results["equality"]
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    ours = np.array(proofs[REFERENCE]["curve"])
    for name, proof in proofs.items():
        curve = np.array(proof["curve"])
        label = name if name == YARDSTICK else title(name)
        style = STYLES.get(name, (0, (1, 3)))
        if name != YARDSTICK:
            left.plot(curve, linestyle=style, color=COLOURS[name], label=label)
        if name != REFERENCE:
            apart = np.maximum(np.abs(curve - ours), 1e-8)  # a log axis has no zero
            right.plot(apart, linestyle=style, color=COLOURS[name], label=label, lw=1)
    right.axhline(TOLERANCES["losses"], color="grey", lw=1)
    # Inside the frame, a fifth of its width from the left.
    right.annotate(
        "allowed",
        (0.2, TOLERANCES["losses"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
    )
    left.set_ylabel("loss (nats per token)")
    right.set_ylabel("distance from Linen (nats)")
    right.set_yscale("log")
    right.set_ylim(5e-9, 1e4 * TOLERANCES["losses"])  # room for the legend above the tolerance
    for axes, columns in ((left, 1), (right, 2)):
        axes.set_xlabel("training step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper right", ncols=columns)
    save_png(figure, path, dpi=100)
