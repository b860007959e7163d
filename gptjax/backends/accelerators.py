"""GPUs and TPUs by name: their peak FLOP/s and their memory, as their makers state them."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """One kind of device.

    Attributes:
        name: a part of JAX's name for the device.
        flops: dense bfloat16 operations per second; of the SXM version, if there are several.
        memory: bytes of one device; None if `--dry-run` does not list the device.
    """

    name: str
    flops: float
    memory: float | None = None

    @property
    def is_tpu(self) -> bool:
        """Whether the device is a TPU and not a GPU."""
        return self.name.startswith("TPU")


# The first name that matches is used, so longer names come before shorter ones.
# TPU v4, v5e, v5p, v6e: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e",
# docs.cloud.google.com/tpu/docs/v4, v5e, v5p-training and v6e.
# H100: half of the sparse figure in NVIDIA's table, at archive-lib.hpctech.co.jp (H100 SXM, PCIe).
# A100: NVIDIA's data sheet as quoted at glennklockwood.com/garden/processors/A100.
# H200: an H100 with 141 GB, "GPU Comparison" of llmbook.apartsin.com, appendix G.
# L4: half of 242, which is with sparsity, "NVIDIA L4 vs L40S" at grokipedia.com.
# T4 (float16: it has no bfloat16): hmc-tech.com, "NVIDIA A16 vs NVIDIA T4".
# RTX 4090: 165.2, dense, "NVIDIA GPU Hardware for Deep Learning" at calwoo.github.io.
# The other figures were not checked again.
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
    """The FLOP/s of a device by its data sheet; None if the device is not in the table."""
    return next((found.flops for found in ACCELERATORS if found.name in kind), None)
