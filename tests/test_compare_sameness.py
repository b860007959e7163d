"""The counts behind the sentence that two programs have the same arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compare import contestants
from compare.measuring import host, sameness
from compare.report import tables

from conftest import tiny_config
from made_up import program, results

HLO = """\
HloModule made_up

%inner (a: f32[2,3,4], b: f32[2,4,5]) -> f32[2,3,5] {
  %a = f32[2,3,4]{2,1,0} parameter(0)
  %b = f32[2,4,5]{2,1,0} parameter(1)
  ROOT %dot.1 = f32[2,3,5]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
}

ENTRY %main (x: f32[3,4], w: f32[4,5]) -> f32[5,3] {
  %x = f32[3,4]{1,0} parameter(0)
  %w = f32[4,5]{1,0} parameter(1)
  %dot.2 = f32[5,3]{1,0} dot(%w, %x), lhs_contracting_dims={0}, rhs_contracting_dims={1}
  ROOT %add = f32[5,3]{1,0} add(%dot.2, %dot.2)
}
"""  # noqa: E501


def test_products_of_a_compiled_program_are_read_from_its_text():
    found = sameness.named(sameness.in_hlo(HLO))
    assert found == {"2x3x5x4": 1, "1x5x3x4": 1}
    assert sameness.flops(found) == 2 * (2 * 3 * 5 * 4) + 2 * (3 * 5 * 4)


def test_products_of_jaxprs_are_counted_where_they_are_called():
    def both(x, w):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=3)
        return jax.jit(jnp.dot)(w, x.T)

    jaxpr = jax.jit(both).trace(np.ones((2, 4), np.float32), np.ones((4, 4), np.float32)).jaxpr
    products, operations = sameness.in_jaxpr(jaxpr.jaxpr)
    assert sameness.named(products) == {"1x2x4x4": 3, "1x4x2x4": 1}
    assert operations["tanh"] == 3 * 2 * 4  # elements, as often as the loop runs


def test_a_product_of_another_size_or_turned_around_is_another():
    x, w = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)

    def compiled(function, *arguments):
        return sameness.describe(jax.jit(function).trace(*arguments))["compiled"]

    one = compiled(lambda x, w: x @ w, x, w)
    assert one == compiled(lambda x, w: jnp.einsum("bc,cd->bd", x, w), x, w) == {"1x3x5x4": 1}
    assert compiled(lambda x, w: w.T @ x.T, x, w) == {"1x5x3x4": 1}
    other = compiled(lambda x, w: x[:2] @ w, x, w)
    assert sameness.difference(one, other) == {"1x3x5x4": 1, "1x2x5x4": -1}


def step_of(name, config):
    contestant = contestants.build(name, config)
    ids = np.zeros((2, 2, 8), np.int32)
    return contestant, contestant.put(ids[0], ids[0])


@pytest.mark.parametrize("form", ["", pytest.param("-tuned", marks=pytest.mark.slow)])
def test_all_designs_are_written_with_the_same_products(form):
    """As traced, so that only the weights must be compiled."""
    with jax.numpy_rank_promotion("allow"):
        found = []
        for design in ("linen", "nnx", "plain"):
            contestant, batch = step_of(design + form, tiny_config())
            found.append(sameness.in_jaxpr(contestant.trace_step(batch).jaxpr.jaxpr)[0])
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "-tuned"])
def test_all_designs_are_compiled_to_the_same_products(form):
    with jax.numpy_rank_promotion("allow"):
        found = []
        for design in ("linen", "nnx", "plain"):
            contestant, batch = step_of(design + form, tiny_config())
            programs = [contestant.trace_step(batch)]
            if not form:
                programs.append(contestant.trace_sampling(np.zeros((1, 2), np.int32), 4))
            found.append([sameness.describe(traced)["compiled"] for traced in programs])
    assert found[0] == found[1] == found[2]
    assert all(sameness.flops(products) for products in found[0])


def test_the_table_says_what_differs():
    run = results("linen", "nnx", "linen-tuned")
    run["programs"]["nnx"]["training"] = program({"1x12x128x128": 3}, exp=2_000_000, neg=1)
    said = tables.programs(run)
    assert "-1 of 1x12x128x128" in said
    assert said.count("**no**") == 1
    [row] = [row for row in tables.operations(run).splitlines() if "step | NNX" in row]
    assert row.endswith("| exp +2.00 |")  # negligible operations are not named


def test_the_tiny_model_has_the_presets_arrays_and_hardly_any_numbers():
    from compare.weights import shapes

    preset = tiny_config(n_layer=3, n_embd=64, n_head=4, block_size=32, vocab_size=65)
    large, small = (jax.tree.leaves(shapes(c.model)) for c in (preset, host.tiny(preset)))
    assert len(small) == len(large)
    assert sum(leaf.size for leaf in small) < 10_000
    x, y = host.tiny_batches(3)
    assert x.shape == y.shape == (3, 1, host.tiny(preset).model.block_size)


@pytest.mark.slow
def test_the_hosts_work_is_measured_in_all_its_parts():
    with jax.numpy_rank_promotion("allow"):
        config = host.tiny(tiny_config())
        x, y = host.tiny_batches(4)
        contestant = contestants.build("nnx", config)
        batch, many = contestant.put(x[0], y[0]), contestant.put(x, y)
        found = host.calls(contestant, batch, many, 4) | host.ways(
            contestant.other_ways(), batch, 4
        )
        found |= host.compiling(contestant, batch)
    assert {"step", "many", "call", "flatten", "nnx.jit"} < found.keys()
    assert set(tables.HOST) < found.keys()
    assert all(value > 0 for value in found.values())
