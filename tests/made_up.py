"""Makes up results of comparisons that never ran."""

from typing import Any

from compare.contestants import BASIC, CONTESTANTS
from compare.ease import DESIGNS
from compare.figures import MEASURES

ALL = tuple(CONTESTANTS)
TRAINING = ("step", "steps", "tokens", "compile")
PRODUCTS = {"1x12x128x128": 4}
FATES = ("happens silently", "an error at once", "cannot happen")


def around(value: float, spread: float = 0.02, repeats: int = 9) -> list[float]:
    """Repetitions with this median, all within the relative spread."""
    if repeats == 1:
        return [value]
    return [value * (1 + spread * (2 * i / (repeats - 1) - 1)) for i in range(repeats)]


def program(products: dict[str, int] | None = None, **operations: int) -> dict[str, Any]:
    found = PRODUCTS if products is None else products
    return {"traced": found, "compiled": found, "operations": {"add": 1_000_000} | operations}


def results(*names: str, **step_ms: float) -> dict[str, Any]:
    """A whole run of `names` (all, unless given); underscores in `step_ms` are dashes.

    Measures that are not given are the same for all contestants, so that their order is unclear.
    """
    names = names or ALL
    times = {name.replace("_", "-"): ms / 1e3 for name, ms in step_ms.items()}
    jax_names = [name for name in names if CONTESTANTS[name].on_jax]
    measures = {
        name: {key: around(1.0) for key in MEASURES if name in BASIC or key in TRAINING}
        for name in names
    }
    for name in names:
        measures[name]["step"] = around(times.get(name, 0.1))
    about = {"threads": 2, "versions": {"jax": "1", "flax": "2", "torch": "3"}}
    proof = {
        "curve": [4.0, 3.0],
        "logits": 0.0,
        "gradient": 0.0,
        "losses": 0.0,
        "tokens": 8,
        "same_tokens": 8,
        "agrees": True,
    }
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gb": 8, "system": "an OS", "python": "3"},
        "model": {"n_layer": 1, "n_embd": 8, "n_head": 1, "dtype": "float32", "dropout": 0.0},
        "parameters": 1000,
        "batch": [2, 8],
        "proof_rate": 1e-4,
        "amounts": {
            "starts": 3,
            "rounds": 9,
            "steps": 4,
            "host_rounds": 7,
            "host_steps": 9,
            "compiles": 3,
        },
        "sample": [2, 6],
        "processes": dict.fromkeys(names, about),
        "equality": {name: dict(proof) for name in dict.fromkeys(("linen", *names))},
        "measures": measures,
        "host": {"tiny": {name: {"step": around(1e-3)} for name in jax_names}, "preset": {}},
        "programs": {
            name: {"training": program()} | ({"sampling": program()} if name in BASIC else {})
            for name in jax_names
        },
        "injection": {"linen": 1, "nnx": 9, "plain": 5},
        "ease": ease(*(design for design in DESIGNS if design in names)),
        "command": "python -m compare",
        "minutes": 1.0,
        "preset": "made-up",
        "missing": [],
        "version": "0",
    }


def ease(*designs: str, silent: dict[str, int] | None = None, **lines: int) -> dict[str, Any]:
    """The short programs `hidden` and `seeds` of these designs, all alike unless given."""
    if not designs:
        return {}

    def fates(count: int) -> dict[str, str]:
        return {what: FATES[i >= count] for i, what in enumerate(("mode", "draw", "snapshot"))}

    def one(design: str, facts: dict[str, Any]) -> dict[str, Any]:
        return {"says": "so", "facts": facts, "lines": lines.get(design, 10)}

    times = {"together_ms": around(10.0), "loop_ms": around(20.0)}
    counts = {design: (silent or {}).get(design, 1) for design in designs}
    return {
        "hidden": {
            "question": "Accidents?",
            "designs": {design: one(design, fates(counts[design])) for design in designs},
        },
        "seeds": {
            "question": "Seeds?",
            "designs": {design: one(design, dict(times)) for design in designs},
        },
    }
