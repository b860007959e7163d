"""Counts a program's matrix products and their FLOPs, in two places.

In the jaxpr (traced), they are what the contestant wrote. In the optimized HLO (compiled), they are
what runs, after the compiler has merged, moved and removed operations. A product has four sizes:
the number of matrices, rows, columns, and the length of the sums. Its mirror image, (y^T x^T)^T for
x y, is another product: it has the same FLOPs, but not the same speed.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

Product = tuple[int, int, int, int]  # matrices, rows, columns, the inner size
ARRAY = r"\w+\[([\d,]*)\]"  # f32[12,128]
INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?([\w.\-]+) = {ARRAY}\S* ([\w\-]+)\((.*)$")
# Primitives that move numbers or change their dtype, but compute nothing.
MOVES = frozenset(
    "broadcast_in_dim reshape transpose squeeze slice concatenate pad convert_element_type copy "
    "dynamic_slice dynamic_update_slice gather scatter iota split rev expand_dims".split()
)


def describe(traced: Any) -> dict[str, Any]:
    """Describes a jax.stages.Traced by numbers that can be compared and stored.

    Returns:
        `traced` and `compiled`, the products: {"1x12x128x128": count}. `operations`: for each other
        primitive that computes, the number of elements it handles, as traced.
    """
    found, operations = in_jaxpr(traced.jaxpr.jaxpr)
    text = traced.lower().compile().as_text() or ""
    return {
        "traced": named(found),
        "compiled": named(in_hlo(text)),
        "operations": dict(sorted(operations.items())),
    }


def named(found: Counter[Product]) -> dict[str, int]:
    """The products by name, for JSON, largest first."""
    ordered = sorted(found.items(), key=lambda item: (-math.prod(item[0]), item[0]))
    return {"x".join(map(str, sizes)): count for sizes, count in ordered}


def count(products: dict[str, int]) -> int:
    """The number of products."""
    return sum(products.values())


def flops(products: dict[str, int]) -> int:
    """The multiplications and additions of all products."""
    return sum(
        2 * math.prod(map(int, name.split("x"))) * number for name, number in products.items()
    )


def in_jaxpr(jaxpr: Any, times: int = 1) -> tuple[Counter[Product], Counter[str]]:
    """Counts products, and elements of other primitives, in a jaxpr and all jaxprs that it calls.

    The body of a `scan` counts as often as it runs, the body of a `while` once. A primitive's
    elements are those of its largest operand or result.
    """
    products: Counter[Product] = Counter()
    operations: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        inner = list(_inner(eqn.params))
        if eqn.primitive.name == "dot_general":
            products[_product(eqn)] += times
        elif not inner and eqn.primitive.name not in MOVES:
            elements = max(math.prod(v.aval.shape) for v in (*eqn.invars, *eqn.outvars))
            operations[eqn.primitive.name] += times * elements
        again = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for one in inner:
            more_products, more_operations = in_jaxpr(one, times * again)
            products += more_products
            operations += more_operations
    return products, operations


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, list | tuple) else (value,):
            if hasattr(one, "eqns"):
                yield one
            elif hasattr(one, "jaxpr") and hasattr(one.jaxpr, "eqns"):
                yield one.jaxpr


def _product(eqn: Any) -> Product:
    (contract, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (v.aval.shape for v in eqn.invars)
    matrices, inner = (math.prod(left[i] for i in axes) for axes in (batch, contract))
    return _sizes(matrices, math.prod(left), math.prod(right), inner)


def _sizes(matrices: int, left: int, right: int, inner: int) -> Product:
    """From the number of elements of both operands."""
    rows, columns = (size // (matrices * inner) for size in (left, right))
    return matrices, rows, columns, inner


def in_hlo(text: str) -> Counter[Product]:
    """Counts products in the text of a compiled program, each computation once."""
    shapes: dict[str, list[int]] = {}
    found: Counter[Product] = Counter()
    for line in text.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            if line.rstrip().endswith("{"):  # the next computation has its own names
                shapes = _parameters(line)
            continue
        name, sizes, operation, rest = match.groups()
        shapes[name] = [int(n) for n in sizes.split(",") if n]
        if operation == "dot":
            found[_dot(rest, shapes)] += 1
    return found


def _parameters(line: str) -> dict[str, list[int]]:
    """Shapes of the parameters in a computation's head, `%name (p: f32[2,3]) -> f32[3] {`."""
    return {
        name: [int(n) for n in sizes.split(",") if n]
        for name, sizes in re.findall(rf"([\w.\-]+): {ARRAY}", line)
    }


def _dot(rest: str, shapes: dict[str, list[int]]) -> Product:
    operands = [name for name in re.findall(r"%?([\w.\-]+)", rest.split(")")[0]) if name in shapes]
    left, right = (shapes[name] for name in operands[:2])

    def product_of(axes: str) -> int:
        match = re.search(rf"{axes}={{([\d,]*)}}", rest)
        return math.prod(left[int(i)] for i in match[1].split(",") if i) if match else 1

    matrices, inner = product_of("lhs_batch_dims"), product_of("lhs_contracting_dims")
    return _sizes(matrices, math.prod(left), math.prod(right), inner)


def difference(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """By name, how many more `one` has than `other`, for the names that differ."""
    names = [name for name in one | other if one.get(name, 0) != other.get(name, 0)]
    return {name: one.get(name, 0) - other.get(name, 0) for name in names}
