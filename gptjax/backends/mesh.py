"""The shape of a mesh of devices, and whether a model and its batch can be divided by it.

A mesh has three axes. Devices along `data` hold the same parameters and compute different
sequences. Those along `fsdp` compute different sequences too, but each holds a part of the
parameters and of the optimizer's state, and a block's weights are gathered before it is computed
(Rajbhandari et al., "ZeRO", 2020, stage 3). Those along `tensor` share the heads and the
feed-forward's width of one block (Shoeybi et al., "Megatron-LM", 2019).
"""

import math
from typing import NamedTuple, Self

from gptjax.config import GPTConfig
from gptjax.errors import InputError


class MeshShape(NamedTuple):
    """The number of devices along each axis."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """Number of devices in the mesh."""
        return math.prod(self)

    @property
    def rows(self) -> int:
        """Number of devices that the sequences of a batch are divided over."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        sizes = zip(self._fields, self, strict=True)
        return ",".join(f"{axis}={size}" for axis, size in sizes if size > 1) or "data=1"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a shape such as `data=2,fsdp=4`. An axis that is not named has one device.

        Raises:
            InputError: an axis is unknown or given twice, or a size is not a whole number above 0.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, _, size = part.strip().partition("=")
            if axis not in cls._fields:
                raise InputError(
                    f"--mesh {text}: {axis!r} must be one of {', '.join(cls._fields)}, as in "
                    "data=2,fsdp=4"
                )
            if axis in sizes:
                raise InputError(f"--mesh {text}: {axis} is named twice")
            if not size.isascii() or not size.isdecimal() or int(size) < 1:
                raise InputError(f"--mesh {text}: {axis}={size} must be a whole number above 0")
            sizes[axis] = int(size)
        return cls(**sizes)


def default_shape(sequences: int, devices: int, processes: int = 1) -> MeshShape:
    """The largest `data` axis that divides the sequences and has equally many devices per process.

    Args:
        sequences: number of sequences computed at once.
        devices: number of devices of all processes together.

    Raises:
        InputError: the sequences cannot be divided over the processes.
    """
    counts = range(processes, devices + 1, processes)
    fitting = [n for n in counts if sequences % n == 0]
    if not fitting:
        raise InputError(
            f"{sequences} sequences are computed at once, and cannot be divided among {processes} "
            "processes: choose a --batch-size (and --micro-batch-size) that is a multiple"
        )
    return MeshShape(max(fitting))


def check_shape(shape: MeshShape, model_config: GPTConfig, sequences: int, devices: int) -> None:
    """Checks that a model and its batch can be divided over this mesh.

    Args:
        sequences: number of sequences computed at once.
        devices: number of devices available.

    Raises:
        InputError: the number of devices is wrong, or a size cannot be divided evenly; the message
            names both numbers and a mesh that fits.
    """
    way_out = _way_out(model_config, sequences, devices)
    if shape.devices != devices:
        raise InputError(
            f"--mesh {shape} needs {shape.devices} devices, but there are {devices}: " + way_out
        )
    for what, size, axis, parts in _divided(shape, model_config, sequences):
        if size % parts:
            raise InputError(
                f"--mesh {shape}: {what} ({size}) must be divisible by {axis} ({parts}); {way_out}"
            )


def _divided(
    shape: MeshShape, model_config: GPTConfig, sequences: int
) -> list[tuple[str, int, str, int]]:
    """What a mesh divides: for each, its name, its size, the axes, and the devices along them."""
    return [
        ("the sequences computed at once", sequences, "data x fsdp", shape.rows),
        ("n_embd", model_config.n_embd, "fsdp", shape.fsdp),
        ("n_head", model_config.n_head, "tensor", shape.tensor),
        ("the feed-forward's width", 4 * model_config.n_embd, "tensor", shape.tensor),
    ]


def _way_out(model_config: GPTConfig, sequences: int, devices: int) -> str:
    """Advice: a mesh of all devices that fits, with `tensor` and `fsdp` as small as possible."""
    sizes = [n for n in range(1, devices + 1) if devices % n == 0]
    shapes = (
        MeshShape(devices // (fsdp * tensor), fsdp, tensor)
        for tensor in sizes
        for fsdp in sizes
        if devices % (fsdp * tensor) == 0
    )
    for shape in shapes:
        if not any(size % parts for _, size, _, parts in _divided(shape, model_config, sequences)):
            return f"--mesh {shape} fits"
    return f"no mesh of {devices} devices fits this batch and model: change --batch-size"
