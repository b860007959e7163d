"""Strict settings for every test, and the fixtures and helpers that many tests share."""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import logging
import os
import shutil
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

# Nearly all of the suite's time is compiling programs that run for milliseconds. So LLVM does not
# optimize them or split them among threads (the workers keep the cores busy), and XLA does not use
# its newer, slower emitters of fusions, if it has an option for that. XLA_FLAGS has the last word.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # JAX 0.11 and later do not know this one, and abort.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import jax
import pytest
from flax import linen as nn

import train
from gptjax import training
from gptjax.app import loop, report
from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.model import GPT, forward
from gptjax.store import runs
from gptjax.training import Placement, init_params

# Some tests compile the same program; a cache in a folder of this session compiles it once. Small
# programs are not stored: writing and reading them takes longer than compiling them.
CACHE = tempfile.TemporaryDirectory(prefix="gptjax-tests-")
jax.config.update("jax_compilation_cache_dir", CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Scripts in separate processes get another cache: tests kill them, and JAX writes files in place.
os.environ["XDG_CACHE_HOME"] = CACHE.name + "/home"

# Tracing makes many small objects, and JAX's modules contain many permanent ones, which the
# garbage collector should not scan again and again.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 20)

# A (V,) added to a (B, V) by accident is a bug that broadcasting hides.
jax.config.update("jax_numpy_rank_promotion", "raise")

# With more than this, a worker forgets its compiled programs after a file of tests. Compiling them
# again takes time: forgetting after each file made the suite a quarter slower.
MOST_BYTES = 3 * 2**30

TEXT = "".join(f"{n}: the quick brown fox jumps over the lazy dog.\n" for n in range(60))
TINY = (
    "--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4 --max-iters 6 "
    "--eval-interval 3 --log-interval 2 --dropout 0.1 --optimizer adamw --learning-rate 4e-3"
).split()


def with_flags(flags: list[str], *more: object) -> list[str]:
    """Adds flags to a command line; each replaces an earlier flag of the same name."""
    changed = {str(flag).partition("=")[0] for flag in more if str(flag).startswith("--")}
    pairs = zip(flags[::2], flags[1::2], strict=True)
    kept = [part for pair in pairs if pair[0] not in changed for part in pair]
    return [*kept, *map(str, more)]


def tiny(*flags: object) -> list[str]:
    """The flags of a tiny run, with these added or replacing its own."""
    return with_flags(TINY, *flags)


def tiny_config(**changes) -> RunConfig:
    """The configuration of a run small enough for a test; `fields` by their flat names."""
    base = RunConfig(
        model=GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.0),
        train=TrainConfig(batch_size=4, max_iters=20, learning_rate=1e-2, min_lr=1e-3),
    )
    return base.replace(**changes)


@partial(jax.jit, static_argnums=0)
def init(model_config: GPTConfig, key: jax.Array):
    """Initializes parameters in one program: much faster than one operation at a time."""
    return init_params(GPT(model_config), key)


@partial(jax.jit, static_argnums=0)
def run_model(
    model_config: GPTConfig, params, x_BT: jax.Array, dropout_key: jax.Array | None = None
):
    """Computes logits, in one program too."""
    return forward(GPT(model_config), params, x_BT, dropout_key)


@partial(jax.jit, static_argnums=(0, 1))
def _init_state(model: GPT, run_config: RunConfig, key: jax.Array):
    return training.init_state(model, run_config, key)


def fresh_state(run_config: RunConfig, key: jax.Array) -> training.TrainState:
    """Makes the state before the first update, with one program for all runs that start alike."""
    model = dataclasses.replace(run_config.model, dropout=0.0, dtype="float32")
    train = TrainConfig(optimizer=run_config.train.optimizer, grad_clip=run_config.train.grad_clip)
    return _init_state(GPT(model), RunConfig(model, train), key)


# Fields of the configuration that only the host reads: they do not change the program.
OF_THE_HOST = {
    name: RunConfig().flat(name)
    for name in (
        "preset data data_sha256 seed eval_interval eval_iters log_interval keep max_minutes "
        "save_interval_minutes data_on_device"
    ).split()
}


@functools.lru_cache(maxsize=32)
def _train_loop(step: object, model: nn.Module, run_config: RunConfig, placement: Placement):
    """The key includes the function that makes the step, because a test may replace it."""
    del step
    return training.make_train_loop(model, run_config, placement)


def resident_bytes() -> int:
    """This process's memory; 0 where the system has no such file."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Forgets compiled programs when they have become many: over all tests they fill 10 GB."""
    yield
    if resident_bytes() < MOST_BYTES:
        return
    _train_loop.cache_clear()
    jax.clear_caches()
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps freed memory
        trim(0)


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch):
    """Runs of equal configuration share their traced loop; of the pictures, one is enough."""
    monkeypatch.setattr(
        loop,
        "make_train_loop",
        lambda model, run_config, placement: _train_loop(
            training.make_train_step, model, run_config.replace(**OF_THE_HOST), placement
        ),
    )
    monkeypatch.setattr(report, "draw_losses", lambda path: (path / runs.PICTURE).write_bytes(b""))


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, made by train.py. Tests that write to the run copy it first."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "text.txt").write_text(TEXT)
    path = folder / "run"
    assert train.main([*TINY, "--data", str(folder / "text.txt"), "--out-dir", str(path)]) == 0
    return path


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to damage or to resume."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 folder; tests that write to it copy it first."""
    from gpt2_folders import make_folder  # it needs packages that not every environment has

    return make_folder(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def count_compiles():
    """A context that collects the names of the programs that are compiled inside it."""

    @contextlib.contextmanager
    def collect():
        names: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: names.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("jax._src.interpreters.pxla")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield names
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    return collect


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Calls a script that must refuse its input: status 2, at most three lines, no traceback.

    Returns stderr, so that the test can check what the error names.
    """

    def call(script, *argv: object) -> str:
        capsys.readouterr()
        status = script.main([str(a) for a in argv])
        captured = capsys.readouterr()
        assert status == 2, (status, captured)
        lines = captured.err.splitlines()
        assert 1 <= len(lines) <= 3, captured.err
        assert lines[-1].startswith(f"{script.__name__}.py: error: "), captured.err
        assert "Traceback" not in captured.err
        return captured.err

    return call


def damage_newest(run: Path, how: str) -> int:
    """Damages the newest checkpoint of a run as a disk might; returns its step."""
    newest = max((run / runs.CHECKPOINTS).iterdir(), key=lambda p: int(p.name))
    files = [p for p in (newest / "params").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    if how == "truncated":
        largest.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif how == "empty":
        largest.write_bytes(b"")
    elif how == "missing file":
        largest.unlink()
    elif how == "missing manifest":
        (newest / "manifest.json").unlink()
    elif how == "gone":
        shutil.rmtree(newest)
    return int(newest.name)
