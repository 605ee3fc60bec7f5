"""The architecture of a model as plain records: the names and defaults of the original's ``arch.*`` keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

TRM = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
LossType = Literal["stablemax_cross_entropy", "softmax_cross_entropy"]
PositionKind = Literal["rope", "learned", "none"]
ForwardDtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss (``arch.loss.*``)."""

    name: str = "losses@ACTLossHead"
    """The original's loss head; there is one."""
    loss_type: LossType = "stablemax_cross_entropy"
    """The cross-entropy of the cells: stablemax in float64 (TRM, arXiv 2510.04871), or softmax."""


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """The architecture (``arch.*``), with the defaults of TinyRecursiveModels' config/arch/trm.yaml."""

    name: str = TRM
    """Which architecture: the original's ``file@Class``."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    halt_exploration_prob: float = 0.1
    """Probability that a training sequence may not halt before a random step (TRM)."""
    halt_max_steps: int = 16
    """Most supervision steps of a sequence in training, and all of them in evaluation (TRM)."""
    halt_max_steps_eval: int | None = None
    """Supervision steps in evaluation; unset: ``halt_max_steps`` (Trelis)."""
    H_cycles: int = 3
    """Updates of the answer latent in a supervision step; all but the last run without gradient (TRM)."""
    L_cycles: int = 6
    """Updates of the reasoning latent before each update of the answer latent (TRM; 4 in the ARC and Maze commands)."""
    H_layers: int = 0
    """Read and ignored, as in the original."""
    L_layers: int = 2
    """Blocks of the shared network (TRM)."""
    hidden_size: int = 512
    """Width of the model (TRM)."""
    num_heads: int = 8
    """Attention heads (TRM)."""
    expansion: float = 4
    """Width of a SwiGLU layer: expansion x width x 2/3, rounded up to a multiple of 256 (TRM)."""
    puzzle_emb_ndim: int | None = None
    """Numbers of a puzzle's embedding; unset: ``hidden_size``; 0: no puzzle embeddings."""
    puzzle_emb_len: int = 16
    """Positions of a puzzle's embedding before the cells; 0: as many as its numbers need (TRM: 16, Trelis from 26 October 2025: 1)."""
    pos_encodings: PositionKind = "rope"
    """Positions: rotary, learned, or none (TRM: rope with attention, none with ``mlp_t``)."""
    forward_dtype: ForwardDtype = "bfloat16"
    """Number type of the forward pass; weights are float32 (TRM)."""
    mlp_t: bool = False
    """Mix positions by a SwiGLU layer instead of attention (TRM's Sudoku)."""
    no_ACT_continue: bool = True
    """Halt by the halting head alone, without a second forward pass for a continue target (TRM)."""
    rms_norm_eps: float = 1e-5
    """Epsilon of the RMS norm (TRM)."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies (TRM)."""
    lora_rank: int = 0
    """Rank of the LoRA on every linear layer; 0: none (Trelis)."""
    lora_alpha: float = 1.0
    """LoRA's scale is alpha / rank (Trelis)."""
    lora_dropout: float = 0.0
    """Dropout before the LoRA (Trelis)."""
    lora_train_base: bool = False
    """Train the linear layers' own weights beside the LoRA (Trelis)."""
    lora_train_bias: bool = False
    """Train the linear layers' biases beside the LoRA (Trelis)."""
    puzzle_emb_dropout: float = 0.0
    """Dropout of the puzzle embedding in training (Trelis)."""
    grid_token_dropout: float = 0.0
    """Dropout of the cells' embeddings in training (Trelis)."""
    grid_noise_prob: float = 0.0
    """Probability that a training input is made noisy (Trelis)."""
    grid_noise_fraction: float = 0.0
    """Share of a noisy input's cells that get another colour (Trelis)."""

    def __post_init__(self) -> None:
        """An unset ``puzzle_emb_ndim`` is ``hidden_size``."""
        if self.puzzle_emb_ndim is None:
            object.__setattr__(self, "puzzle_emb_ndim", self.hidden_size)

    @property
    def row_size(self) -> int:
        """Length of a row of the puzzle table; 0 for none."""
        return self.puzzle_emb_ndim or 0

    @property
    def puzzle_tokens(self) -> int:
        """Tokens before the cells. ``hrm`` and ``transformers_baseline`` know no ``puzzle_emb_len``."""
        needed = -(-self.row_size // self.hidden_size)
        return self.puzzle_emb_len if self.puzzle_emb_len and has_puzzle_emb_len(self.name) else needed


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the data set says about a model: colours and other cell values, cells of a sequence, rows of the puzzle table."""

    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int


def has_puzzle_emb_len(name: str) -> bool:
    """Whether the architecture of this name reads ``puzzle_emb_len``."""
    return name.partition("@")[0].rpartition(".")[2] not in ("hrm", "transformers_baseline")
