"""A tiny recursive model that computes as TinyRecursiveModels (Samsung, arXiv 2510.04871) does: the peer of `trm.py`.

Weights are cast at every call, the RMS norm and the loss are single operations of torch with autograd, positions are mixed over transposed
copies, and the optimisers go through the parameters one by one. Names of the weights are those of ours, so that both take the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
IGNORED = -100


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Over the last axis, in float32."""
    dtype = x.dtype
    x = x.to(torch.float32)
    variance = x.pow(2).mean(-1, keepdim=True)
    return (x * torch.rsqrt(variance + eps)).to(dtype)


def rotate_half(x: Tensor) -> Tensor:
    """(a, b) -> (-b, a)."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def rotary(query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, heads, d) of each, at their positions."""
    dtype = query.dtype
    query, key = query.to(cosine.dtype), key.to(cosine.dtype)
    cosine, sine = cosine.unsqueeze(-2), sine.unsqueeze(-2)
    return (query * cosine + rotate_half(query) * sine).to(dtype), (key * cosine + rotate_half(key) * sine).to(dtype)


class CastedLinear(nn.Module):
    """Casts its weight at every call."""

    def __init__(self, size_in: int, size_out: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size_out, size_in))
        self.bias = nn.Parameter(torch.zeros(size_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class CastedEmbedding(nn.Module):
    """Casts its table at every call."""

    def __init__(self, rows: int, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding_weight, self.dtype = nn.Parameter(torch.empty(rows, size)), dtype

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding_weight.to(self.dtype))


class SparseEmbedding(nn.Module):
    """In training, a copy of the batch's rows collects their gradient."""

    def __init__(self, rows: int, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(rows, size))
        self.dtype, self.local_weights, self.local_ids = dtype, torch.zeros(0, size), torch.zeros(0)

    def forward(self, ids: Tensor) -> Tensor:
        if not self.training:
            return self.weights[ids].to(self.dtype)
        if len(self.local_ids) != len(ids):
            self.local_weights, self.local_ids = torch.zeros(len(ids), self.weights.shape[1], requires_grad=True), torch.zeros_like(ids)
        with torch.no_grad():
            self.local_weights.copy_(self.weights[ids])
            self.local_ids.copy_(ids)
        return self.local_weights.to(self.dtype)


class SwiGLU(nn.Module):
    """The gated MLP."""

    def __init__(self, size: int, expansion: float) -> None:
        super().__init__()
        inner = -(-round(expansion * size * 2 / 3) // 256) * 256
        self.gate_up_proj, self.down_proj = CastedLinear(size, 2 * inner), CastedLinear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class Attention(nn.Module):
    """Every position sees every position."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj, self.o_proj = CastedLinear(size, 3 * size), CastedLinear(size, size)

    def forward(self, x: Tensor, cos_sin: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, positions, size = x.shape
        qkv = self.qkv_proj(x).view(batch, positions, 3 * self.heads, size // self.heads)
        query, key, value = (qkv[:, :, part * self.heads : (part + 1) * self.heads] for part in range(3))
        if cos_sin is not None:
            query, key = rotary(query, key, *cos_sin)
        found = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=False)
        return self.o_proj(found.transpose(1, 2).reshape(batch, positions, size))


class Block(nn.Module):
    """Mixes positions, then channels."""

    def __init__(self, arch: Any, positions: int) -> None:
        super().__init__()
        self.eps, self.over_positions = arch.rms_norm_eps, arch.mlp_t
        if arch.mlp_t:
            self.mlp_t = SwiGLU(positions, arch.expansion)
        else:
            self.self_attn = Attention(arch.hidden_size, arch.num_heads)
        self.mlp = SwiGLU(arch.hidden_size, arch.expansion)

    def forward(self, x: Tensor, cos_sin: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.over_positions:
            x = x.transpose(1, 2)
            x = rms_norm(x + self.mlp_t(x), self.eps)
            x = x.transpose(1, 2)
        else:
            x = rms_norm(x + self.self_attn(x, cos_sin), self.eps)
        return rms_norm(x + self.mlp(x), self.eps)


class Level(nn.Module):
    """The network."""

    def __init__(self, arch: Any, positions: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(arch, positions) for _ in range(arch.L_layers))

    def forward(self, x: Tensor, injection: Tensor, cos_sin: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + injection
        for layer in self.layers:
            x = layer(x, cos_sin)
        return x


class PlainModel(nn.Module):
    """One call is one supervision step; the carry is a dictionary."""

    def __init__(self, arch: Any, sizes: Any) -> None:
        super().__init__()
        self.arch, self.dtype = arch, getattr(torch, arch.forward_dtype)
        self.positions = arch.puzzle_emb_len + sizes.seq_len
        self.embed_tokens = CastedEmbedding(sizes.vocab_size, arch.hidden_size, self.dtype)
        self.lm_head = CastedLinear(arch.hidden_size, sizes.vocab_size)
        self.q_head = CastedLinear(arch.hidden_size, 2, bias=True)
        self.puzzle_emb = SparseEmbedding(sizes.num_puzzle_identifiers, arch.row_size, self.dtype)
        self.L_level = Level(arch, self.positions)
        for name in ("H_init", "L_init"):
            self.register_buffer(name, torch.zeros(arch.hidden_size, dtype=self.dtype))
        self.cos_sin = None
        if arch.pos_encodings == "rope" and not arch.mlp_t:
            width = arch.hidden_size // arch.num_heads
            frequency = 1 / arch.rope_theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
            angle = torch.outer(torch.arange(self.positions, dtype=torch.float32), frequency)
            angle = torch.cat((angle, angle), dim=-1)
            self.cos_sin = (angle.cos(), angle.sin())

    def initial_carry(self, batch: Batch) -> dict[str, Any]:
        """All slots halted."""
        count = len(batch["inputs"])
        empty = torch.zeros(count, self.positions, self.arch.hidden_size, dtype=self.dtype)
        return {
            "z_H": empty, "z_L": empty.clone(), "steps": torch.zeros(count, dtype=torch.int32),
            "halted": torch.ones(count, dtype=torch.bool), "current": {name: torch.empty_like(value) for name, value in batch.items()},
        }  # fmt: skip

    def embed(self, inputs: Tensor, ids: Tensor) -> Tensor:
        """Puzzle tokens and cells."""
        size, tokens = self.arch.hidden_size, self.arch.puzzle_emb_len
        row = self.puzzle_emb(ids)
        if missing := tokens * size - row.shape[-1]:
            row = F.pad(row, (0, missing))
        return math.sqrt(size) * torch.cat((row.view(-1, tokens, size), self.embed_tokens(inputs.to(torch.int32))), dim=-2)

    def inner(self, z_H: Tensor, z_L: Tensor, current: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The recursion and the heads: latents without gradient, logits of the cells and of halting."""
        x = self.embed(current["inputs"], current["puzzle_identifiers"])
        with torch.no_grad():
            for _ in range(self.arch.H_cycles - 1):
                for _ in range(self.arch.L_cycles):
                    z_L = self.L_level(z_L, z_H + x, self.cos_sin)
                z_H = self.L_level(z_H, z_L, self.cos_sin)
        for _ in range(self.arch.L_cycles):
            z_L = self.L_level(z_L, z_H + x, self.cos_sin)
        z_H = self.L_level(z_H, z_L, self.cos_sin)
        q = self.q_head(z_H[:, 0]).to(torch.float32)
        return z_H.detach(), z_L.detach(), self.lm_head(z_H)[:, self.arch.puzzle_emb_len :], q[..., 0]

    def forward(
        self, carry: dict[str, Any], batch: Batch, generator: torch.Generator | None = None
    ) -> tuple[dict[str, Any], Tensor, dict[str, Tensor]]:
        """(carry, loss, metrics) of one supervision step."""
        halted, arch = carry["halted"], self.arch
        z_H = torch.where(halted.view(-1, 1, 1), self.H_init, carry["z_H"])
        z_L = torch.where(halted.view(-1, 1, 1), self.L_init, carry["z_L"])
        steps = torch.where(halted, 0, carry["steps"])
        current = {
            name: torch.where(halted.view((-1,) + (1,) * (batch[name].ndim - 1)), batch[name], old)
            for name, old in carry["current"].items()
        }  # fmt: skip
        z_H, z_L, logits, q = self.inner(z_H, z_L, current)
        with torch.no_grad():
            steps = steps + 1
            halted = steps >= arch.halt_max_steps
            if self.training and arch.halt_max_steps > 1:
                halted = halted | (q > 0)
                explores = torch.rand(len(q), generator=generator) < arch.halt_exploration_prob
                least = explores * torch.randint(2, arch.halt_max_steps + 1, (len(q),), generator=generator, dtype=torch.int32)
                halted = halted & (steps >= least)
        after = {"z_H": z_H, "z_L": z_L, "steps": steps, "halted": halted, "current": current}
        loss, metrics = act_loss(logits, q, after)
        return after, loss, metrics


def stablemax_cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """In float64, by autograd."""
    x = logits.to(torch.float64)
    s = torch.where(x < 0, 1 / (1 - x + 1e-30), x + 1)
    logprobs = torch.log(s / s.sum(dim=-1, keepdim=True))
    chosen = torch.gather(logprobs, dim=-1, index=torch.where(valid, labels, 0).to(torch.long).unsqueeze(-1)).squeeze(-1)
    return -torch.where(valid, chosen, 0)


def act_loss(logits: Tensor, q: Tensor, carry: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss summed over the batch, and the metrics."""
    labels = carry["current"]["labels"]
    with torch.no_grad():
        mask = labels != IGNORED
        counts = mask.sum(-1)
        divisor = counts.clamp_min(1).unsqueeze(-1)
        correct = mask & (torch.argmax(logits, dim=-1) == labels)
        whole = correct.sum(-1) == counts
        valid = carry["halted"] & (counts > 0)
        metrics = {
            "count": valid.sum(),
            "accuracy": torch.where(valid, (correct.to(torch.float32) / divisor).sum(-1), 0).sum(),
            "exact_accuracy": (valid & whole).sum(),
            "q_halt_accuracy": (valid & ((q >= 0) == whole)).sum(),
            "steps": torch.where(valid, carry["steps"], 0).sum(),
        }
    lm_loss = (stablemax_cross_entropy(logits, labels, mask) / divisor).sum()
    q_loss = F.binary_cross_entropy_with_logits(q, whole.to(q.dtype), reduction="sum")
    return lm_loss + 0.5 * q_loss, metrics | {"lm_loss": lm_loss.detach(), "q_halt_loss": q_loss.detach()}


class AdamATan2:
    """The formula of the adam-atan2 kernel, parameter by parameter."""

    def __init__(self, parameters: list[nn.Parameter], betas: tuple[float, float], weight_decay: float) -> None:
        self.parameters, self.betas, self.weight_decay, self.steps = parameters, betas, weight_decay, 0
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter."""
        self.steps += 1
        first, second = self.betas
        c1, c2 = 1 - first**self.steps, 1 - second**self.steps
        for p, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            p.mul_(1 - lr * self.weight_decay)
            mean.lerp_(p.grad, 1 - first)
            square.mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
            p.add_(torch.atan2(mean, square.sqrt() / math.sqrt(c2)), alpha=-lr / c1)


class SignSGD:
    """On the rows of the batch."""

    def __init__(self, table: SparseEmbedding, weight_decay: float) -> None:
        self.table, self.weight_decay = table, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Sum the gradients of each row, and move it by their sign."""
        gradient = self.table.local_weights.grad
        ids, place = self.table.local_ids.unique(return_inverse=True)
        total = torch.zeros(len(ids), gradient.shape[1])
        total.scatter_add_(0, place.unsqueeze(-1).expand(-1, gradient.shape[1]), gradient)
        rows = self.table.weights[ids]
        rows.mul_(1 - lr * self.weight_decay).add_(torch.sign(total), alpha=-lr)
        self.table.weights.index_put_((ids.long(),), rows)


class PlainLearner:
    """The model with its optimisers."""

    def __init__(self, arch: Any, sizes: Any, weights: Mapping[str, Tensor], config: Any, generator: torch.Generator) -> None:
        self.model = PlainModel(arch, sizes)
        self.model.load_state_dict(dict(weights))
        self.config, self.generator = config, generator
        self.trunk = AdamATan2(list(self.model.parameters()), (config.beta1, config.beta2), config.weight_decay)
        self.table = SignSGD(self.model.puzzle_emb, config.puzzle_emb_weight_decay)
        self.carry: dict[str, Any] | None = None

    def step(self, batch: Batch, rates: tuple[float, float]) -> dict[str, float]:
        """One optimiser step, and its metrics; ``rates`` are those of the table and of the trunk."""
        self.model.train()
        if self.carry is None:
            self.carry = self.model.initial_carry(batch)
        self.carry, loss, metrics = self.model(self.carry, batch, self.generator)
        (loss / len(batch["inputs"])).backward()
        self.update(rates)
        self.zero_grad()
        values = torch.stack([value.double() for value in metrics.values()]).tolist()
        return dict(zip(metrics, values, strict=True))

    def update(self, rates: tuple[float, float]) -> None:
        """Both optimisers."""
        self.table.step(rates[0])
        self.trunk.step(rates[1])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in (*self.model.parameters(), self.table.table.local_weights):
            parameter.grad = None

    @torch.inference_mode()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """All supervision steps; the original's loss head is in each of them."""
        self.model.eval()
        carry = self.model.initial_carry(batch)
        for _ in range(self.arch_steps):
            carry, _, metrics = self.model(carry, batch)
        return metrics

    @property
    def arch_steps(self) -> int:
        """Supervision steps of an evaluation."""
        return int(self.model.arch.halt_max_steps)
