"""Pictures: drawn in memory and written whole, without a display."""

import io
from pathlib import Path
from typing import Any

from gptjax.files import write_whole


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    from matplotlib.figure import Figure  # half a second, so only where a picture is drawn

    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Any, path: Path, dpi: int = 110) -> None:
    """Writes a figure as PNG, wholly or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    write_whole(path, picture.getvalue())
