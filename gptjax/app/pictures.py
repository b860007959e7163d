"""Pictures, drawn in memory without a display, independent of the user's matplotlib settings."""

import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gptjax.files import write_whole


@contextlib.contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Applies matplotlib's defaults within a block or, as a decorator, within a function.

    A user's matplotlibrc may ask for LaTeX, or for fonts that are not installed.
    """
    matplotlib = _matplotlib()
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    with matplotlib.rc_context(defaults):
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    _matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_png(
    figure: Any, path: Path, dpi: int = 110, write: Callable[[Path, bytes], None] = write_whole
) -> None:
    """Writes a figure as PNG, wholly or not at all.

    Args:
        write: pass `write_named` for a path that the user gave, which may be a link.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, format="png", dpi=dpi)
    write(path, picture.getvalue())


def _matplotlib() -> Any:
    """Imports matplotlib, which takes half a second, only where a picture is drawn.

    The import fails if MPLBACKEND names a backend that is not installed (a shell started from a
    notebook inherits one), if matplotlibrc is not a text file, or if there is no home folder. We
    then import it again without those settings.
    """
    try:
        import matplotlib.figure
    except ImportError:
        raise
    except Exception:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            del sys.modules[name]  # modules left over from the failed import
        with mock.patch.dict(os.environ, _environment(), clear=True):
            import matplotlib.figure
    return matplotlib


def _environment() -> dict[str, str]:
    """The process's environment without the variables that can break matplotlib's import."""
    folder = tempfile.mkdtemp(prefix="gptjax-matplotlib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MPL", "MATPLOTLIB"))}
    return kept | {"MPLCONFIGDIR": folder}
