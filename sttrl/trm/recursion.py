"""The tiny recursive model (arXiv 2510.04871): one small network, applied again and again to an answer and a latent reasoning.

With x the embedded puzzle, y the embedded answer (``z_H``) and z the reasoning (``z_L``), one supervision step is

    H_cycles times:  L_cycles times z <- net(z + (y + x)),  then  y <- net(y + z)

of which only the last of the ``H_cycles`` has a gradient. A head on y gives every cell, another on its first position says whether
the answer is right, that is, whether to halt. Both latents are carried, without gradient, to the next supervision step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sttrl.trm.arch import ArchConfig, Sizes, check_arch
from sttrl.trm.layers import (
    Attention,
    Embedding,
    GatedMLP,
    Linear,
    Rotation,
    Weights,
    attend,
    dropped,
    gated,
    keep_mask,
    normalised_sum,
    rotation,
    truncated_normal,
)
from sttrl.trm.puzzle_table import PuzzleTable

Batch = Mapping[str, Tensor]
HALF = 0.707106781
"""Keeps the spread of cells and learned positions together at that of one of them."""
FIRST_DOUBT = -5.0
"""The halting head starts almost sure that answers are wrong."""


@dataclass
class Carry:
    """What goes from one supervision step to the next, for each of B slots: two latents, the step, whether it halted, and its data.

    ``z_H`` and ``z_L``: (B, P + S, D) in the type of the forward pass; ``steps`` (B,) int32; ``halted`` (B,) bool. ``current`` is
    the data that a slot works on: ``inputs`` and ``labels`` (B, S), ``puzzle_identifiers`` (B,), and whatever else the batch has.
    An architecture with one latent has a ``z_L`` of no positions; ``trm_hier6`` has (B, 6, P + S, D).
    """

    z_H: Tensor
    z_L: Tensor
    steps: Tensor
    halted: Tensor
    current: dict[str, Tensor]


@dataclass(frozen=True)
class Outputs:
    """Logits of the cells (B, S, V); of halting and continuing (B,), float32; what continuing should be, for HRM's Q-learning only."""

    logits: Tensor
    q_halt_logits: Tensor
    q_continue_logits: Tensor
    target_q_continue: Tensor | None = None


class Layer(nn.Module):
    """Mixes positions, then channels; RMS norm after each. With an MLP over positions, the first norm is over positions too."""

    def __init__(self, arch: ArchConfig, positions: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.arch = arch
        if arch.mlp_t:
            self.mlp_t = GatedMLP(positions, arch.expansion, generator=generator)
        else:
            self.self_attn = Attention(arch.hidden_size, arch.num_heads, generator=generator)
        self.mlp = GatedMLP(arch.hidden_size, arch.expansion, generator=generator)

    def linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """Its four linear maps, in the order of use."""
        if self.arch.mlp_t:
            return self.mlp_t.gate_up_proj, self.mlp_t.down_proj, self.mlp.gate_up_proj, self.mlp.down_proj
        return self.self_attn.qkv_proj, self.self_attn.o_proj, self.mlp.gate_up_proj, self.mlp.down_proj

    def forward(self, x: Tensor, weights: tuple[Weights, ...], by: Rotation | None) -> Tensor:
        """(B, S, D) -> (B, S, D); with ``mlp_t``, (S, B, D) -> (S, B, D), so that nothing is transposed."""
        first, second, third, fourth = weights
        eps = self.arch.rms_norm_eps
        if self.arch.mlp_t:
            inner = gated(first.on_positions(x.flatten(1)), 0)
            x = normalised_sum(x, second.on_positions(inner).view(x.shape), 0, eps)
        else:
            x = normalised_sum(x, attend(x, first, second, self.arch.num_heads, by), -1, eps)
        return normalised_sum(x, fourth.on_channels(gated(third.on_channels(x), -1)), -1, eps)


class Level(nn.Module):
    """The network that is applied again and again."""

    def __init__(self, arch: ArchConfig, layers: int, positions: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(arch, positions, generator=generator) for _ in range(layers))

    def ready(self, dtype: torch.dtype, generator: torch.Generator | None) -> tuple[tuple[Weights, ...], ...]:
        """Its weights in a number type, for the calls that follow."""
        return tuple(tuple(linear.ready(dtype, generator) for linear in layer.linears()) for layer in self.layers)

    def forward(self, x: Tensor, weights: tuple[tuple[Weights, ...], ...], by: Rotation | None) -> Tensor:
        """One application."""
        for layer, own in zip(self.layers, weights, strict=True):
            x = layer(x, own, by)
        return x


class TinyRecursiveModel(nn.Module):
    """The recursive model with its embeddings, heads and puzzle table. Names of its weights: the original's, without ``model.inner.``.

    Another architecture inherits from it and says which latents it starts from, which networks it has, and how one step goes.
    """

    starts: tuple[str, ...] = ("H_init", "L_init")
    """Names of the vectors that latents start from; the heads read the first latent."""
    q_learning = False
    """Whether the architecture always learns when to continue, as HRM does."""

    def __init__(self, arch: ArchConfig, sizes: Sizes, *, generator: torch.Generator, device: torch.device | str = "cpu") -> None:
        super().__init__()
        check_arch(arch)
        self.arch, self.sizes = arch, sizes
        self.dtype = getattr(torch, arch.forward_dtype)
        self.tokens = arch.puzzle_tokens
        self.positions = self.tokens + sizes.seq_len
        self.embed_tokens = Embedding(sizes.vocab_size, arch.hidden_size, generator=generator)
        self.lm_head = Linear(arch.hidden_size, sizes.vocab_size, generator=generator)
        self.q_head = Linear(arch.hidden_size, 2, bias=True, generator=generator)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, FIRST_DOUBT)
        if arch.pos_encodings == "learned":
            self.embed_pos = Embedding(self.positions, arch.hidden_size, generator=generator)
        self._add_levels(generator)
        for name in self.starts:
            start = truncated_normal((arch.hidden_size,), 1.0, generator).bfloat16()  # as in the original's files
            self.register_buffer(name, start.to(self.dtype))
        if arch.pos_encodings == "rope" and not arch.mlp_t:
            for name, part in rotation(self.positions, arch.hidden_size // arch.num_heads, arch.rope_theta)._asdict().items():
                self.register_buffer(name, part, persistent=False)
        self.to(device)
        self.puzzle_emb = PuzzleTable(sizes.num_puzzle_identifiers, arch.row_size, device=device) if arch.row_size else None
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None

    @property
    def table(self) -> PuzzleTable | None:
        """The puzzle table, where there is one."""
        return self.puzzle_emb

    @property
    def rotation(self) -> Rotation | None:
        """Rotary positions, where there are any."""
        return Rotation(self.cosine, self.sine) if hasattr(self, "cosine") else None

    def trunk_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Every parameter with its name. The puzzle table and the starts of the latents are none."""
        return list(self.named_parameters())

    def compile_recursion(self) -> None:
        """Compile the recursion, where all the time goes. Names of weights stay as they are."""
        self._compiled = torch.compile(type(self).recur)

    def initial_carry(self, batch: Batch) -> Carry:
        """All slots halted, so that the first step starts each on a row of its batch."""
        inputs = batch["inputs"]
        rows, device = len(inputs), inputs.device
        return Carry(
            z_H=torch.zeros(rows, self.positions, self.arch.hidden_size, dtype=self.dtype, device=device),
            z_L=torch.zeros(rows, *self.rest_shape(), self.arch.hidden_size, dtype=self.dtype, device=device),
            steps=torch.zeros(rows, dtype=torch.int32, device=device),
            halted=torch.ones(rows, dtype=torch.bool, device=device),
            current={name: torch.zeros_like(values) for name, values in batch.items()},
        )

    @property
    def explores(self) -> bool:
        """Whether a step of training draws which slots may not halt early."""
        return self.arch.halt_exploration_prob > 0 and self.arch.halt_max_steps > 1

    def draw_least(self, slots: int, generator: torch.Generator | None) -> Tensor:
        """The step before which each slot may not halt, (slots,): 0, or with the probability of exploration one from 2 to the maximum."""
        if generator is None:
            raise ValueError("a model in training needs a generator for its exploration")
        explores = torch.rand(slots, generator=generator, device=generator.device) < self.arch.halt_exploration_prob
        last = self.arch.halt_max_steps
        least = torch.randint(2, last + 1, (slots,), generator=generator, device=generator.device, dtype=torch.int32)
        return explores * least

    def refill(self, carry: Carry, batch: Batch) -> Carry:
        """Give each halted slot the row of the batch in its place, fresh latents, and step 0."""
        halted = carry.halted
        z_H, z_L = self.fresh()
        return Carry(
            z_H=torch.where(_along(halted, carry.z_H), z_H, carry.z_H),
            z_L=torch.where(_along(halted, carry.z_L), z_L, carry.z_L),
            steps=torch.where(halted, 0, carry.steps),
            halted=halted,
            current={name: torch.where(_along(halted, old), batch[name], old) for name, old in carry.current.items()},
        )

    def forward(
        self, carry: Carry, batch: Batch, *, generator: torch.Generator | None = None, least: Tensor | None = None
    ) -> tuple[Carry, Outputs]:
        """One supervision step: the carry after it, and what the heads say.

        In training a slot halts when the halting head says so, or after ``halt_max_steps``; in evaluation after the same number of
        steps for all. ``generator`` gives the random numbers of training: exploration and dropout. ``least`` (B,): what `draw_least`
        gave for these slots, where a batch is computed in parts; None: it is drawn here.
        """
        start = self.refill(carry, batch)
        x = self.embed(start.current, generator)
        z_H, z_L = self.think(start.z_H, start.z_L, x, generator)
        outputs = self.read(z_H, generator)
        z_H, z_L = z_H.detach(), z_L.detach()
        with torch.no_grad():
            steps = start.steps + 1
            halted = self._halts(outputs, steps, generator, least)
            if self.training and self._learns_continuing():
                outputs = self._with_target(outputs, steps, self.read(self.think(z_H, z_L, x, generator)[0], generator))
        return Carry(z_H, z_L, steps, halted, start.current), outputs

    def embed(self, current: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The puzzle's tokens and its cells, (B, P + S, D)."""
        x = self.embed_tokens(current["inputs"], self.dtype)
        if self.training:
            x = dropped(x, self.arch.grid_token_dropout, generator)
        if self.puzzle_emb is not None:
            row = self.puzzle_emb(current["puzzle_identifiers"]).to(self.dtype)
            if self.training and self.arch.puzzle_emb_dropout:
                row = row * keep_mask((len(row), 1), self.arch.puzzle_emb_dropout, generator, row)
            row = nn.functional.pad(row, (0, self.tokens * self.arch.hidden_size - row.shape[-1]))
            x = torch.cat((row.view(-1, self.tokens, self.arch.hidden_size), x), 1)
        if self.arch.pos_encodings == "learned":
            x = HALF * (x + self.embed_pos.embedding_weight.to(self.dtype))
        return math.sqrt(self.arch.hidden_size) * x

    def think(self, z_H: Tensor, z_L: Tensor, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One supervision step of the latents, (B, P + S, D) each. Inside, an MLP over positions has positions first."""
        recursion: Callable[..., tuple[Tensor, Tensor]] = self._compiled or type(self).recur
        if not self.arch.mlp_t:
            return recursion(self, z_H, z_L, x, generator)
        z_H, z_L = recursion(self, *(part.transpose(0, -2).contiguous() for part in (z_H, z_L, x)), generator)
        return z_H.transpose(0, -2).contiguous(), z_L.transpose(0, -2).contiguous()

    def recur(self, z_H: Tensor, z_L: Tensor, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """All cycles of one supervision step; see the head of the file."""
        with torch.no_grad():
            weights = self.L_level.ready(self.dtype, generator)
            for _ in range(self.arch.H_cycles - 1):
                z_H, z_L = self._cycle(z_H, z_L, x, weights)
        return self._cycle(z_H, z_L, x, self.L_level.ready(self.dtype, generator))

    def read(self, z_H: Tensor, generator: torch.Generator | None = None) -> Outputs:
        """What the heads say of an answer."""
        logits = self.lm_head.ready(self.dtype, generator).on_channels(z_H[:, self.tokens :])
        q = self.q_head.ready(self.dtype, generator).on_channels(z_H[:, 0]).float()
        return Outputs(logits, q[:, 0], q[:, 1])

    def rest_shape(self) -> tuple[int, ...]:
        """The shape of ``z_L`` of one slot, without its width."""
        return (self.positions,)

    def fresh(self) -> tuple[Tensor, Tensor]:
        """What ``z_H`` and ``z_L`` start from, to be repeated for slots and positions."""
        return self.H_init, self.L_init

    def _add_levels(self, generator: torch.Generator) -> None:
        self.L_level = Level(self.arch, self.arch.L_layers, self.positions, generator=generator)

    def _cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor, weights: tuple[tuple[Weights, ...], ...]) -> tuple[Tensor, Tensor]:
        injected = z_H + x
        for _ in range(self.arch.L_cycles):
            z_L = self.L_level(z_L + injected, weights, self.rotation)
        return self.L_level(z_H + z_L, weights, self.rotation), z_L

    def _learns_continuing(self) -> bool:
        return (self.q_learning or not self.arch.no_ACT_continue) and self.arch.halt_max_steps > 1

    def _halts(self, outputs: Outputs, steps: Tensor, generator: torch.Generator | None, least: Tensor | None) -> Tensor:
        most = self.arch.halt_max_steps
        if not self.training:
            return steps >= (self.arch.halt_max_steps_eval or most)
        halted = steps >= most
        if most == 1:
            return halted
        level = outputs.q_continue_logits if self._learns_continuing() else 0
        halted = halted | (outputs.q_halt_logits > level)
        if least is None and self.explores:
            least = self.draw_least(len(steps), generator).to(steps.device)
        return halted if least is None else halted & (steps >= least)

    def _with_target(self, outputs: Outputs, steps: Tensor, following: Outputs) -> Outputs:
        """HRM's Q-learning (arXiv 2506.21734): continuing is worth what the next step says of halting or continuing."""
        best = torch.maximum(following.q_halt_logits, following.q_continue_logits)
        target = torch.where(steps >= self.arch.halt_max_steps, following.q_halt_logits, best).sigmoid()
        return Outputs(outputs.logits, outputs.q_halt_logits, outputs.q_continue_logits, target)


def _along(flag: Tensor, values: Tensor) -> Tensor:
    """(B,) shaped so that it selects rows of ``values``."""
    return flag.view(-1, *(1,) * (values.ndim - 1))
