"""The parts of the network: linear maps, embeddings, the gated MLP, attention with rotary positions, RMS norm, and how weights start.

Weights are float32 and are converted to the number type of the forward pass once for a whole recursion: a layer gives its weights
`ready`, and the recursion applies them many times. `gated` and `normalised_sum` have gradients of their own here, which keep no more
and copy less than those that autograd would put together.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH_MULTIPLE = 256


def truncated_normal(shape: tuple[int, ...], std: float, generator: torch.Generator, limit: float = 2.0) -> Tensor:
    """Float32 numbers of the normal distribution cut at ``limit`` times its spread, scaled so that what is left has ``std``."""
    if std == 0:
        return torch.zeros(shape)
    mass = math.erf(limit / math.sqrt(2))
    density = math.exp(-0.5 * limit * limit) / math.sqrt(2 * math.pi)
    spread = std / math.sqrt(1 - 2 * limit * density / mass)
    drawn = torch.empty(shape, device=generator.device).uniform_(-mass, mass, generator=generator)
    return drawn.erfinv_().mul_(math.sqrt(2) * spread).clamp_(-limit * spread, limit * spread)


def inner_size(size: int, expansion: float) -> int:
    """Width of a gated MLP: two thirds of the expansion, rounded up to a multiple of 256."""
    return -(-round(expansion * size * 2 / 3) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


class Weights(NamedTuple):
    """One linear map, in the number type of the forward pass, with LoRA's factors where it has any."""

    weight: Tensor
    bias: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    dropout: float = 0.0
    generator: torch.Generator | None = None

    def on_channels(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., out)."""
        out = functional.linear(x, self.weight, self.bias)
        if self.down is None or self.up is None:
            return out
        return out + functional.linear(functional.linear(dropped(x, self.dropout, self.generator), self.down), self.up)

    def on_positions(self, x: Tensor) -> Tensor:
        """(positions, columns) -> (out, columns): the map across positions, without transposing what it maps."""
        out = torch.mm(self.weight, x)
        if self.down is None or self.up is None:
            return out
        return out + torch.mm(self.up, torch.mm(self.down, dropped(x, self.dropout, self.generator)))


class Linear(nn.Module):
    """A linear map, which may have LoRA's two factors beside its weight, under the names of Trelis' fork."""

    def __init__(self, size_in: int, size_out: int, *, generator: torch.Generator, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((size_out, size_in), 1 / math.sqrt(size_in), generator))
        self.register_parameter("bias", nn.Parameter(torch.zeros(size_out)) if bias else None)
        self.register_parameter("_lora_A", None)
        self.register_parameter("_lora_B", None)
        self.scale, self.dropout = 0.0, 0.0

    def add_factors(self, rank: int, scale: float, dropout: float, *, generator: torch.Generator) -> None:
        """LoRA (arXiv 2106.09685): ``weight + scale * B A``. A starts uniform, as torch's own linear maps do, and B zero."""
        size_out, size_in = self.weight.shape
        bound = 1 / math.sqrt(size_in)
        first = torch.empty(rank, size_in, device=generator.device).uniform_(-bound, bound, generator=generator)
        self._lora_A = nn.Parameter(first.to(self.weight))
        self._lora_B = nn.Parameter(self.weight.new_zeros(size_out, rank))
        self.scale, self.dropout = scale, dropout

    def merged(self) -> Tensor:
        """The weight with LoRA's product added."""
        if self._lora_A is None:
            return self.weight
        return self.weight + self.scale * (self._lora_B @ self._lora_A)

    def ready(self, dtype: torch.dtype, generator: torch.Generator | None = None) -> Weights:
        """The map in a number type. Where no gradient is taken, LoRA is merged into the weight, for it is applied many times."""
        bias = None if self.bias is None else self.bias.to(dtype)
        dropout = self.dropout if self.training else 0.0
        if self._lora_A is None or (not torch.is_grad_enabled() and not dropout):
            return Weights(self.merged().to(dtype), bias)
        return Weights(
            self.weight.to(dtype), bias, self._lora_A.to(dtype), (self.scale * self._lora_B).to(dtype), dropout=dropout, generator=generator
        )


class Embedding(nn.Module):
    """A table of vectors, one for each cell value or position."""

    def __init__(self, rows: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(truncated_normal((rows, size), 1 / math.sqrt(size), generator))

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Ids of any shape -> their vectors."""
        return functional.embedding(ids, self.embedding_weight.to(dtype))


class GatedMLP(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``, without biases (arXiv 2002.05202)."""

    def __init__(self, size: int, expansion: float, *, generator: torch.Generator) -> None:
        super().__init__()
        inner = inner_size(size, expansion)
        self.gate_up_proj = Linear(size, 2 * inner, generator=generator)
        self.down_proj = Linear(inner, size, generator=generator)


class Attention(nn.Module):
    """Attention of every position to every position. Rows of ``qkv_proj``: queries of all heads, then keys, then values."""

    def __init__(self, size: int, heads: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * (size // heads)
        self.qkv_proj = Linear(size, 3 * inner, generator=generator)
        self.o_proj = Linear(inner, size, generator=generator)


class Rotation(NamedTuple):
    """Rotary positions (arXiv 2104.09864) of heads that are rotated half against half: cosines, and sines with their sign. (S, 1, d)."""

    cosine: Tensor
    sine: Tensor


def rotation(positions: int, head_size: int, theta: float) -> Rotation:
    """The rotation of each position, in float32."""
    frequency = theta ** -(torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency)
    sine = angle.sin()
    return Rotation(torch.cat((angle, angle), -1).cos()[:, None], torch.cat((-sine, sine), -1)[:, None])


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """(B, S, heads, d): each pair (i, i + d/2) turned by the angle of its position, in float32."""
    turned = x * by.cosine + x.roll(x.shape[-1] // 2, -1) * by.sine
    return turned.to(x.dtype)


def attend(x: Tensor, qkv: Weights, out: Weights, heads: int, by: Rotation | None) -> Tensor:
    """(B, S, D) -> (B, S, D)."""
    batch, positions, size = x.shape
    head_size = size // heads  # rounded down, as in the original: attention may be narrower than x
    parts = qkv.on_channels(x).view(batch, positions, 3, heads, head_size)
    if by is None:
        query, key = parts[:, :, 0], parts[:, :, 1]
    else:
        query, key = rotate(parts[:, :, :2].flatten(2, 3), by).split(heads, 2)
    found = functional.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), parts[:, :, 2].transpose(1, 2))
    return out.on_channels(found.transpose(1, 2).reshape(batch, positions, heads * head_size))


def dropped(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Dropout whose random numbers come from a generator. ``rate`` 0 changes nothing and draws nothing."""
    if not rate:
        return x
    return x * keep_mask(tuple(x.shape), rate, generator, x)


def keep_mask(shape: tuple[int, ...], rate: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Zeros with probability ``rate``, else ``1 / (1 - rate)``: what dropout multiplies by."""
    if generator is None:
        raise ValueError("dropout needs a generator")
    kept = torch.rand(shape, generator=generator, device=generator.device) >= rate
    return kept.to(like.device, like.dtype) / max(1 - rate, 1e-12)


def gated(both: Tensor, dim: int) -> Tensor:
    """silu(first half) * second half, along ``dim``. Where no gradient is taken, ``both`` may be overwritten."""
    if torch.compiler.is_compiling():
        gate, up = both.chunk(2, dim)
        return functional.silu(gate) * up
    return _Gated.apply(both, dim)


def normalised_sum(x: Tensor, y: Tensor, dim: int, eps: float) -> Tensor:
    """RMS norm, without weights, of x + y along ``dim``: computed in float32, given in the type of x."""
    if torch.compiler.is_compiling():
        total = (x + y).float()
        return (total * torch.rsqrt(total.square().mean(dim, keepdim=True) + eps)).to(x.dtype)
    return _NormalisedSum.apply(x, y, dim, eps)


class _Gated(torch.autograd.Function):
    """Keeps its input and silu of the first half, and writes both halves of the gradient into one tensor."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, dim: int) -> Tensor:
        gate, up = both.chunk(2, dim)
        if not ctx.needs_input_grad[0]:
            return functional.silu(gate, inplace=dim == 0).mul_(up)
        opened = functional.silu(gate)
        ctx.save_for_backward(both, opened)
        ctx.dim = dim
        return opened * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, ctx.dim)
        out = torch.empty_like(both)
        out_gate, out_up = out.chunk(2, ctx.dim)
        torch.mul(grad, opened, out=out_up)
        torch.mul(grad, up, out=out_gate)
        torch.ops.aten.silu_backward.grad_input(out_gate, gate, grad_input=out_gate)
        return out, None


class _NormalisedSum(torch.autograd.Function):
    """Keeps its output and one factor per row. The gradient of n = r s is r (g - n mean(g n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dim: int, eps: float) -> Tensor:
        total = (x + y).float()
        factor = total.square().mean(dim, keepdim=True).add_(eps).rsqrt_()
        exact = total.mul_(factor)
        out = exact.to(x.dtype)
        ctx.save_for_backward(exact if out is exact else out, factor)
        ctx.dim = dim
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        out, factor = ctx.saved_tensors
        wide, exact = grad.float(), out.float()
        inner = (wide * exact).mean(ctx.dim, keepdim=True)
        found = torch.addcmul(wide, exact, inner, value=-1).mul_(factor).to(grad.dtype)
        return found, found, None, None
