"""8-bit linears in vLLM on the CPU, for tests: its own kernels there hold 4 bits only.

vLLM still reads config.json, matches, fuses and loads by itself; what it then holds packed is
turned into the 16-bit weight that the codes stand for, as its GPU kernels do for each tile.
"""

import torch
from torch import nn
from torch.nn import functional
from vllm.model_executor.kernels.linear import register_linear_kernel
from vllm.model_executor.kernels.linear.mixed_precision import MPLinearKernel, MPLinearLayerConfig
from vllm.platforms import PlatformEnum
from vllm.scalar_type import scalar_types

MIDDLE = 128


class DequantizedLinearKernel(MPLinearKernel):
    """A symmetric 8-bit linear, held as its 16-bit weight."""

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        return c.weight_type == scalar_types.uint8b128, "symmetric 8 bits only"

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Unpack `weight_packed` int32 [N, K/4], lowest byte first, and scale it by group."""
        packed, scales, _ = self._get_weight_params(layer)
        codes = packed.data.view(torch.uint8).float() - MIDDLE
        rows, groups = scales.shape
        weight = codes.view(rows, groups, -1) * scales.data.float()[:, :, None]
        layer.dequantized = weight.view(rows, -1).to(self.config.act_type)
        del layer.weight_packed, layer.weight_scale

    def apply_weights(
        self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return functional.linear(x, layer.dequantized, bias)


def register() -> None:
    """Called by vLLM in each of its processes."""
    register_linear_kernel(DequantizedLinearKernel, PlatformEnum.CPU, "mp")
