"""A weight of the wrong shape, a kernel transposed: when is it noticed, is the layer named?"""

from collections.abc import Callable
from typing import Any

from compare import weights
from compare.ease import Outcome, Problem

LAYER = "fc"  # what an error should name
SHOWN = 160  # characters of a message


def _tell(loading: Callable[[], Any], calling: Callable[[], Any]) -> Outcome:
    """Loads the weights, then calls the model, and reports which of them raises, and what."""
    for when, program in (("when the weights are loaded", loading), ("at the call", calling)):
        try:
            program()
        except Exception as error:  # whatever the library raises
            said = " ".join(str(error).split())
            named = LAYER in said
            shown = said if len(said) <= SHOWN else said[:SHOWN] + " ..."
            shown = shown.replace("|", "\\|").replace("`", "'")
            says = f"{when}, a {type(error).__name__} that "
            says += f"{'names' if named else 'does not name'} the layer: `{shown}`"
            return Outcome(says, {"when": when, "named": named, "kind": type(error).__name__})
    return Outcome("never", {"when": "never", "named": False, "kind": ""})


def linen(problem: Problem) -> Outcome:
    model, params, (x, _) = problem.linen(), problem.params, problem.batch("linen")
    block = params["block_0"]
    wrong = block["mlp"] | {"fc": block["mlp"]["fc"] | {"kernel": block["mlp"]["fc"]["kernel"].T}}
    params = params | {"block_0": block | {"mlp": wrong}}
    return _tell(
        lambda: None,  # nothing to load: the weights are an argument of the call
        lambda: model.apply({"params": params}, x, deterministic=True),
    )


def nnx(problem: Problem) -> Outcome:
    from compare.drive.nnx import set_params

    model, (x, _) = problem.nnx(), problem.batch("nnx")
    arrays = weights.to_native("nnx", problem.run_config.model, problem.params)
    arrays["blocks/0/mlp/fc/kernel"] = arrays["blocks/0/mlp/fc/kernel"].T
    return _tell(lambda: set_params(model, arrays), lambda: model(x))


def torch(problem: Problem) -> Outcome:
    model, (x, _) = problem.torch(), problem.batch("torch")
    state = model.state_dict()
    state["h.0.mlp.c_fc.weight"] = state["h.0.mlp.c_fc.weight"].T
    return _tell(lambda: model.load_state_dict(state), lambda: model(x))
