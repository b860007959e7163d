"""GPUs and TPUs by name: their peak arithmetic and their memory, from their makers' figures."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """One kind of device.

    Attributes:
        name: what JAX's name of the device contains.
        flops: dense bfloat16 operations per second, of SXM versions where there are several.
        memory: of one device in bytes; None where it is not listed as a target for a plan.
    """

    name: str
    flops: float
    memory: float | None = None

    @property
    def is_tpu(self) -> bool:
        """A TPU, not a GPU."""
        return self.name.startswith("TPU")


# The first whose name fits counts, so longer names stand before shorter ones.
# TPU v4, v5e, v5p, v6e: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e",
# docs.cloud.google.com/tpu/docs/v4, v5e, v5p-training and v6e.
# H100: half of the sparse figure in NVIDIA's table, at archive-lib.hpctech.co.jp (H100 SXM, PCIe).
# A100: NVIDIA's data sheet as quoted at glennklockwood.com/garden/processors/A100.
# H200: an H100 with 141 GB, "GPU Comparison" of llmbook.apartsin.com, appendix G.
# L4: half of 242, which is with sparsity, "NVIDIA L4 vs L40S" at grokipedia.com.
# T4 (float16: it has no bfloat16): hmc-tech.com, "NVIDIA A16 vs NVIDIA T4".
# RTX 4090: 165.2, dense, "NVIDIA GPU Hardware for Deep Learning" at calwoo.github.io.
# The rest was not looked up again.
ACCELERATORS = (
    Accelerator("H200", 989e12, 141e9),
    Accelerator("H100 PCIe", 756e12),
    Accelerator("H100", 989e12, 80e9),
    Accelerator("A100", 312e12, 80e9),
    Accelerator("L4", 121e12, 24e9),
    Accelerator("RTX 4090", 165e12, 24e9),
    Accelerator("T4", 65e12, 16e9),  # float16: it has no bfloat16
    Accelerator("V100", 125e12),  # float16: it has no bfloat16
    Accelerator("TPU v6", 918e12, 32e9),
    Accelerator("TPU v5p", 459e12, 95e9),
    Accelerator("TPU v5", 197e12, 16e9),
    Accelerator("TPU v4", 275e12, 32 * 2**30),
    Accelerator("TPU v3", 123e12),
    Accelerator("TPU v2", 45e12),
)


def peak(kind: str) -> float | None:
    """The FLOP/s of a device in its data sheet; None if it is not among those known."""
    return next((found.flops for found in ACCELERATORS if found.name in kind), None)
