"""vLLM's fused CPU kernels for its eager path, by its registry of replaced layers (``register_oot``).

vLLM on CPU computes norms and activations by one torch operation after the other and leaves the fusing to its compiler, which takes
a minute at every start. The fused kernels are in the same library; here its layers call them. Importing this module registers them
for the process; only vLLM's worker does, before it builds the model.
"""

from __future__ import annotations

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm

from sttrl.engine.merge import PolicyWeights

OPS = torch.ops._C


class CpuPolicyWeights(PolicyWeights):
    """`PolicyWeights` for a worker on CPU: to name it is to import these kernels."""


@RMSNorm.register_oot
class FusedRMSNorm(RMSNorm):
    """Root-mean-square norm of ``x`` ``[..., H]``, or of ``x + residual`` and that sum, in one pass."""

    def forward_cpu(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As ``forward_native``, which does what the kernel does not: other dtypes, no weight, part of the row, strided rows."""
        plain = self.has_weight and self.variance_size_override is None and self.weight.dtype == x.dtype
        if not plain or not x.is_contiguous() or residual is not None and not residual.is_contiguous():
            return self.forward_native(x, residual)
        if residual is None:
            normed = torch.empty_like(x)
            OPS.rms_norm(normed, x, self.weight, self.variance_epsilon)
            return normed
        OPS.fused_add_rms_norm(x, residual, self.weight, self.variance_epsilon)
        return x, residual


@SiluAndMul.register_oot
class FusedSiluAndMul(SiluAndMul):
    """silu(a) * b of ``x`` = ``[..., a | b]`` in one pass."""

    def forward_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """As ``forward_native``."""
        return self.forward_cuda(x)
