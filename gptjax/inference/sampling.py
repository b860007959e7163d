"""From logits to the next token: penalty, temperature, top-k, top-p, min-p, and the draw.

The order is that of Hugging Face's `generate`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.fields import check, check_types, flag

Array = jax.Array
ALL = 2**31 - 1
# Penalties are limited to this and to its inverse, so that logits stay finite. At any practical
# temperature the effect is the same.
MOST_PENALTY = np.float32(2.0**64)
LEAST_TEMPERATURE = np.finfo(np.float32).tiny  # many processors round smaller numbers to 0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn: by default, from the model's own distribution.

    sample.py makes flags, with help and checks, from these fields. `generate(..., top_k=40)` takes
    them by name. The jitted program takes them as traced numbers; see `traced`.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; more than the vocabulary means all.
        top_p: draw among the fewest likeliest tokens that together have probability top_p
            (nucleus sampling, Holtzman et al., "The curious case of neural text degeneration").
        min_p: draw among the tokens at least min_p times as probable as the likeliest (Nguyen et
            al., "Turning up the heat: min-p sampling").
        repetition_penalty: divides the positive logits of tokens that the text contains, and
            multiplies their negative logits (Keskar et al., "CTRL", section 4.1); 1 for none.

    Raises:
        ConfigError: a setting is out of range.
    """

    temperature: float = flag(1.0, "below 1 is more predictable; 0 is greedy")
    top_k: int | None = flag(None, "sample from the k likeliest tokens [all]", off=ALL, int32=False)
    top_p: float | None = flag(
        None, "sample from the likeliest tokens with this probability together [all]", off=1.0
    )
    min_p: float | None = flag(
        None, "sample from tokens at least this fraction as likely as the likeliest [all]", off=0.0
    )
    repetition_penalty: float = flag(1.0, "above 1 makes tokens already in the text less likely")

    def __post_init__(self) -> None:
        check_types(self)
        check(self.temperature >= 0, "temperature", self.temperature, "must be at least 0")
        top_k, top_p, min_p = self.top_k, self.top_p, self.min_p
        rule = "must be at least 1; leave it out for all tokens"
        check(top_k is None or top_k >= 1, "top_k", top_k, rule)
        check(top_p is None or 0 < top_p <= 1, "top_p", top_p, "must be above 0 and at most 1")
        check(min_p is None or 0 <= min_p <= 1, "min_p", min_p, "must be at least 0 and at most 1")
        penalty = self.repetition_penalty
        rule = "must be above 0; 1 means no penalty"
        check(bool(np.float32(penalty) > 0), "repetition_penalty", penalty, rule)

    def traced(self) -> dict[str, Any]:
        """The settings by name, as scalars for the jitted program: changing one never recompiles.

        They are NumPy scalars: making JAX scalars would initialize a device too early.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = field.metadata["off"] if value is None else value
            is_whole = isinstance(value, int)
            values[field.name] = np.int32(min(value, ALL)) if is_whole else np.float32(value)
        if self.temperature > 0:
            values["temperature"] = np.maximum(values["temperature"], LEAST_TEMPERATURE)
        penalty = values["repetition_penalty"]
        values["repetition_penalty"] = np.clip(penalty, 1 / MOST_PENALTY, MOST_PENALTY)
        return values


# The settings that drop tokens, and the values at which each drops none.
_FILTERS = {f.name: f.metadata["off"] for f in dataclasses.fields(Sampling) if f.default is None}


def penalize(logits_BV: Array, used_BV: Array, sampling: Mapping[str, Array]) -> Array:
    """Lowers the logits of tokens that the text already contains.

    Args:
        used_BV: whether a row's text contains a token.
        sampling: the result of `Sampling.traced()`, here and below.
    """
    penalty = sampling["repetition_penalty"]
    smaller_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(used_BV, smaller_BV, logits_BV)


def filter_logits(logits_BV: Array, sampling: Mapping[str, Array]) -> Array:
    """Each logit minus its row's largest, divided by the temperature: (B, V), at most 0.

    Tokens that top-k, then top-p, then min-p drop get -inf. The likeliest token always stays. In a
    tie, the lower id ranks first, so that top_k = 1 is greedy and exactly k tokens stay.
    """
    # Subtract first: dividing by a small temperature could make several logits infinite.
    temperature = jnp.where(sampling["temperature"] > 0, sampling["temperature"], 1)
    below_BV = (logits_BV - logits_BV.max(-1, keepdims=True)) / temperature
    all_tokens = sampling["top_k"] >= logits_BV.shape[-1]
    sampling = {**sampling, "top_k": jnp.where(all_tokens, ALL, sampling["top_k"])}
    # Skip sorting if no filter is on: for a large vocabulary it costs more than a small model.
    is_on = jnp.any(jnp.stack([sampling[name] != off for name, off in _FILTERS.items()]))
    return jax.lax.cond(is_on, _drop, lambda x, *_: x, below_BV, logits_BV, sampling)


def _drop(below_BV: Array, logits_BV: Array, sampling: Mapping[str, Array]) -> Array:
    """Ranks the tokens, decides which ranks stay, and maps the decision back to the tokens.

    Ranks come from the logits, because a large temperature makes several differences equal.
    """
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    ranked_BV = jnp.take_along_axis(below_BV, order_BV, axis=-1)
    rank_1V = jnp.arange(below_BV.shape[-1])[None]
    ranked_BV = jnp.where(rank_1V < sampling["top_k"], ranked_BV, -jnp.inf)
    probability_BV = nn.softmax(ranked_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    # Because of rounding, probabilities may add up to more than 1, but top_p = 1 means all.
    within_BV = (before_BV < sampling["top_p"]) | (sampling["top_p"] == 1)
    stay_BV = within_BV & (rank_1V < sampling["top_k"])
    stay_BV = stay_BV & (probability_BV >= sampling["min_p"] * probability_BV[:, :1])
    stay_BV = stay_BV | (rank_1V == 0)
    stay_BV = jnp.take_along_axis(stay_BV, jnp.argsort(order_BV, axis=-1), axis=-1)
    return jnp.where(stay_BV, below_BV, -jnp.inf)


def sample_token(logits_BV: Array, keys_B: Array, sampling: Mapping[str, Array]) -> Array:
    """Draws one token for each row with its own key: (B,) int32."""
    filtered_BV = filter_logits(logits_BV, sampling)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, filtered_BV)
    greedy_B = jnp.argmax(logits_BV, axis=-1)
    return jnp.where(sampling["temperature"] > 0, drawn_B, greedy_B).astype(jnp.int32)
