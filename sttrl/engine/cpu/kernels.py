"""Faster norms and activations for vLLM's eager path on CPU, by its registry of replaced layers (``register_oot``).

vLLM on CPU computes them by one torch operation after the other and leaves the fusing to its compiler, which takes a minute at every
start. Its own library has fused kernels, too; where they are the faster ones its layers call them here. Importing this module registers
them for the process; only vLLM's worker does, before it builds the model.
"""

from __future__ import annotations

from functools import cache

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm

from sttrl.engine.merge import PolicyWeights

OPS = torch.ops._C


class CpuPolicyWeights(PolicyWeights):
    """`PolicyWeights` for a worker on CPU: to name it is to import these kernels."""


@cache
def rounds() -> bool:
    """Whether vLLM's norm rounds to bfloat16 here.

    Built for processors without an instruction for it, it cuts off, and a residual summed over the layers shrinks.
    """
    one, more = torch.ones(1, 64, dtype=torch.bfloat16), torch.full((1, 64), 0.75 * 2.0**-7, dtype=torch.bfloat16)
    OPS.fused_add_rms_norm(one, more, torch.ones(64, dtype=torch.bfloat16), 1e-5)
    return bool((more > 1).all())


@RMSNorm.register_oot
class FusedRMSNorm(RMSNorm):
    """Root-mean-square norm of ``x`` ``[..., H]``, or of ``x + residual`` and that sum, in one pass."""

    def forward_cpu(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As ``forward_native``, which does what the kernel does not: round everywhere, other dtypes, no weight, part of a row, strides."""
        plain = self.has_weight and self.variance_size_override is None and self.weight.dtype == x.dtype
        plain = plain and (x.dtype != torch.bfloat16 or rounds())
        if not plain or not x.is_contiguous() or residual is not None and not residual.is_contiguous():
            return self.forward_native(x, residual)
        if residual is None:
            normed = torch.empty_like(x)
            OPS.rms_norm(normed, x, self.weight, self.variance_epsilon)
            return normed
        OPS.fused_add_rms_norm(x, residual, self.weight, self.variance_epsilon)
        return x, residual


@SiluAndMul.register_oot
class SiluAndMulInPlace(SiluAndMul):
    """silu(a) * b of ``x`` = ``[..., a | b]``, rounded after each as the learner's model does.

    vLLM's fused kernel takes 2.4 times as long for 32 rows, 2.9 times for 96.
    """

    def forward_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """As ``forward_native``."""
        a, b = x.chunk(2, dim=-1)
        return torch.nn.functional.silu(a).mul_(b)
