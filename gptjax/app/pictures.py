"""Pictures: drawn in memory and written whole, without a display, whatever matplotlib is told."""

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
def own_settings() -> Iterator[None]:
    """Matplotlib's own defaults while the block runs; `@own_settings()` over a whole function.

    A matplotlibrc may ask for LaTeX, or for fonts that are not there.
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
        write: `write_named` for a path that a person named, which may be a link.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, format="png", dpi=dpi)
    write(path, picture.getvalue())


def _matplotlib() -> Any:
    """Matplotlib: half a second, so it is imported only where a picture is drawn.

    Its import fails where MPLBACKEND names what is not installed (a shell that a notebook started
    has it), where matplotlibrc is not text, and where there is no home. It is then imported again,
    in an environment of our own.
    """
    try:
        import matplotlib.figure
    except ImportError:
        raise
    except Exception:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half of its modules are there, and find no package
        with mock.patch.dict(os.environ, _environment(), clear=True):
            import matplotlib.figure
    return matplotlib


def _environment() -> dict[str, str]:
    """The process's environment without what matplotlib's import may stumble over."""
    folder = tempfile.mkdtemp(prefix="gptjax-matplotlib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MPL", "MATPLOTLIB"))}
    return kept | {"MPLCONFIGDIR": folder}
