"""The contestants behind one face, for whoever measures or compares them.

Each file has its functions in its own design's shape; here they are driven alike. Importing this
file imports none of them: a contestant's process pays for its own library alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from gptjax.config import RunConfig

Arrays = dict[str, np.ndarray]


class About(NamedTuple):
    """What the page calls a contestant.

    Attributes:
        title: in tables and pictures.
        needs: modules that must be installed.
        file: where it is written.
        weights: whose names of the weights it has.
    """

    title: str
    needs: tuple[str, ...]
    file: str
    weights: str


CONTESTANTS = {
    "linen": About("Linen (gptjax)", (), "linen_gpt.py", "linen"),
    "nnx": About("Flax NNX", (), "nnx_gpt.py", "nnx"),
    "plain": About("plain JAX", (), "plain_gpt.py", "plain"),
    "torch": About("PyTorch", ("torch", "safetensors"), "torch_gpt.py", "torch"),
    "torch-compile": About("PyTorch, compiled", ("torch", "safetensors"), "torch_gpt.py", "torch"),
}
INSTALL = 'pip install -e ".[compare]"'


def missing(name: str) -> str | None:
    """Why a contestant cannot take part, with the way out; None if it can."""
    for module in CONTESTANTS[name].needs:
        if importlib.util.find_spec(module) is None:
            return f"{CONTESTANTS[name].title} is left out: {module} is not installed ({INSTALL})"
    return None


class Contestant(Protocol):
    """A model, its optimizer's state and how to drive them. Ids are NumPy int32, (B, T)."""

    def set_weights(self, arrays: Arrays) -> None: ...  # native names; the optimizer starts anew
    def weights(self) -> Arrays: ...
    def logits(self, x_BT: np.ndarray) -> np.ndarray: ...
    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays: ...
    def put(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Any: ...  # a batch, in its memory
    def step(self, batch: Any) -> Any: ...  # one update; the loss, perhaps not computed yet
    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int) -> np.ndarray: ...  # greedy
    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...


def build(name: str, config: RunConfig) -> Contestant:
    """A contestant of fresh weights.

    Args:
        config: a RunConfig, or for all but `linen` anything hashable with its fields.

    Raises:
        ConfigError: it has what this project's training alone has.
    """
    has = {"gradient_accumulation_steps": 1, "optimizer": "adamw"}
    for field, only in has.items():
        value = getattr(config.train, field)
        if name != "linen" and value != only:
            from gptjax.errors import ConfigError

            raise ConfigError(field, value, f"must be {only}: {name} has no other")
    if name in ("linen", "plain"):
        return Functional(importlib.import_module(f"compare.{name}_gpt"), config)
    return Nnx(config) if name == "nnx" else Torch(config, compiled=name == "torch-compile")


class Functional:
    """linen_gpt and plain_gpt: whoever calls keeps the state, so this object does."""

    def __init__(self, api: Any, config: RunConfig) -> None:
        import jax
        from jax import numpy as jnp

        self.api, self.config, self.jax, self.array = api, config, jax, jnp.asarray
        self.state = api.make(config, config.seed)
        self.key = jax.random.key(config.seed)

    def params(self) -> Any:
        return self.state["params"] if isinstance(self.state, dict) else self.state.params

    def set_weights(self, arrays: Arrays) -> None:
        fresh, params = self.api.make(self.config, self.config.seed), unflatten(arrays, self.array)
        plain = isinstance(fresh, dict)
        self.state = fresh | {"params": params} if plain else fresh.replace(params=params)

    def weights(self) -> Arrays:
        return flatten(self.params())

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        return np.asarray(self.api.forward(self.config, self.params(), self.array(x_BT)))

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        grad = self.jax.grad(self.api.loss, argnums=1)
        return flatten(grad(self.config, self.params(), self.array(x_BT), self.array(y_BT)))

    def put(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Any:
        return self.array(x_BT), self.array(y_BT)

    def step(self, batch: Any) -> Any:
        self.state, loss = self.api.train_step(self.config, self.state, *batch, self.key)
        return loss

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int) -> np.ndarray:
        prompt = self.array(prompt_BT)
        out = self.api.generate(self.config, self.params(), prompt, self.key, max_new_tokens, 0.0)
        return np.asarray(out)

    def save(self, path: Path) -> None:
        self.api.save(path, self.state)

    def load(self, path: Path) -> None:
        self.state = self.jax.block_until_ready(self.api.load(path, self.config))


class Nnx:
    """nnx_gpt."""

    def __init__(self, config: RunConfig) -> None:
        import jax
        from flax import nnx
        from jax import numpy as jnp

        from compare import nnx_gpt

        self.api, self.nnx, self.config = nnx_gpt, nnx, config
        self.array, self.key = jnp.asarray, jax.random.key(config.seed)
        self._adopt(*nnx_gpt.make(config, config.seed))

    def _adopt(self, model: Any, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer
        # What its guide advises for loops: the objects are traversed once, not at each step.
        self._step = self.nnx.cached_partial(self.api.train_step, model, optimizer)

    def set_weights(self, arrays: Arrays) -> None:
        model, optimizer = self.api.make(self.config, self.config.seed)
        state = self.nnx.state(model, self.nnx.Param)
        self.nnx.replace_by_pure_dict(state, unflatten(arrays, self.array))
        self.nnx.update(model, state)
        self._adopt(model, optimizer)

    def weights(self) -> Arrays:
        return flatten(self.nnx.to_pure_dict(self.nnx.state(self.model, self.nnx.Param)))

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        model = self.nnx.view(self.model, deterministic=True)
        return np.asarray(self.api.forward(model, self.array(x_BT)))

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        model = self.nnx.view(self.model, deterministic=True)
        grads = self.nnx.grad(self.api.loss)(model, self.array(x_BT), self.array(y_BT))
        return flatten(self.nnx.to_pure_dict(grads))

    def put(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Any:
        return self.array(x_BT), self.array(y_BT)

    def step(self, batch: Any) -> Any:
        return self._step(*batch)

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int) -> np.ndarray:
        prompt = self.array(prompt_BT)
        return np.asarray(self.api.generate(self.model, prompt, self.key, max_new_tokens, 0.0))

    def save(self, path: Path) -> None:
        self.api.save(path, self.model, self.optimizer)

    def load(self, path: Path) -> None:
        self.api.load(path, self.model, self.optimizer)


class Torch:
    """torch_gpt, with or without torch.compile."""

    def __init__(self, config: RunConfig, compiled: bool) -> None:
        import torch

        from compare import torch_gpt

        self.api, self.torch, self.config, self.compiled = torch_gpt, torch, config, compiled
        self.training = torch_gpt.make(config, config.seed, compiled=compiled)

    def set_weights(self, arrays: Arrays) -> None:
        self.training = self.api.make(self.config, self.config.seed, compiled=self.compiled)
        with self.torch.no_grad():
            for name, p in self.training[0].named_parameters():
                p.copy_(self.torch.from_numpy(np.array(arrays[name])))

    def weights(self) -> Arrays:
        return {n: p.detach().numpy().copy() for n, p in self.training[0].named_parameters()}

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        model = self.training[0].eval()
        with self.torch.inference_mode():
            logits = self.api.forward(model, self.torch.from_numpy(x_BT).long())
        model.train()
        return logits.numpy()

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        model = self.training[0].eval()
        model.zero_grad()
        self.api.loss(model, *self.put(x_BT, y_BT)).backward()
        model.train()
        grads = {
            n: np.array(p.grad.numpy()) for n, p in model.named_parameters() if p.grad is not None
        }
        model.zero_grad()
        return grads

    def put(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Any:
        return tuple(self.torch.from_numpy(np.array(ids)).long() for ids in (x_BT, y_BT))

    def step(self, batch: Any) -> Any:
        return self.api.train_step(*self.training, *batch, grad_clip=self.config.train.grad_clip)

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int) -> np.ndarray:
        prompt = self.torch.from_numpy(np.array(prompt_BT)).long()
        return self.api.generate(self.training[0], prompt, max_new_tokens, 0.0).numpy()

    def save(self, path: Path) -> None:
        self.api.save(path, *self.training)

    def load(self, path: Path) -> None:
        self.api.load(path, *self.training)


def flatten(tree: Any) -> Arrays:
    """{"a": {0: leaf}} to {"a/0": NumPy array}."""
    flat: Arrays = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[str(name)] = np.asarray(value)
    return flat


def unflatten(arrays: Arrays, convert: Any) -> Any:
    """The inverse of `flatten`, with `convert` applied to each array; all names are strings."""
    tree: dict[str, Any] = {}
    for path, leaf in arrays.items():
        *parents, last = path.split("/")
        at = tree
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = convert(leaf)
    return tree
