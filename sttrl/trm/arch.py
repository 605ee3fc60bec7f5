"""The architecture of a recursive model: the fields of ``arch.*`` in TinyRecursiveModels, and the sizes that come from the data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sttrl.errors import UsageError

LossType = Literal["stablemax_cross_entropy", "softmax_cross_entropy"]
DTYPES = ("float32", "bfloat16", "float16")
POSITIONS = ("rope", "learned", "none")
SHARES = ("halt_exploration_prob", "puzzle_emb_dropout", "grid_token_dropout", "lora_dropout", "grid_noise_prob", "grid_noise_fraction")
"""Fields that are probabilities or shares."""
TRM = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
TABLE = "puzzle_emb.weights"
"""The name of the puzzle table among the weights of a model."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss on the cells, ``arch.loss.*``."""

    name: str = "losses@ACTLossHead"
    """The original's name of the loss with the halting head; there is no other."""
    loss_type: LossType = "stablemax_cross_entropy"
    """Cross-entropy over stablemax (in float64), the original's default, or over softmax (in float32)."""


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """One architecture. Names and defaults are those of TinyRecursiveModels' ``config/arch/trm.yaml``, then of Trelis' fork."""

    name: str = TRM
    """Which architecture: a name of the original, ``file@class``."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss on the cells."""
    halt_exploration_prob: float = 0.1
    """Probability that a sequence may not halt before a random step (in training)."""
    halt_max_steps: int = 16
    """Supervision steps after which a sequence halts; in evaluation all take this many."""
    halt_max_steps_eval: int | None = None
    """Supervision steps in evaluation; None: ``halt_max_steps``."""
    H_cycles: int = 3
    """Updates of the answer in one supervision step; only the last has a gradient."""
    L_cycles: int = 6
    """Updates of the latent reasoning before each update of the answer. The README's command for ARC has 4."""
    H_layers: int = 0
    """Layers of the upper network of ``hrm`` and ``transformers_baseline``; the tiny recursive model has none."""
    L_layers: int = 2
    """Layers of the network."""
    hidden_size: int = 512
    """Width of a token."""
    num_heads: int = 8
    """Heads of attention."""
    expansion: float = 4
    """Width of an MLP as a multiple of its input: times 2/3, rounded up to a multiple of 256."""
    puzzle_emb_ndim: int | None = None
    """Length of a row of the puzzle table; None: ``hidden_size``; 0: no table."""
    puzzle_emb_len: int = 16
    """Tokens that a row of the puzzle table becomes, padded with zeros; 0: as many as the row needs."""
    pos_encodings: str = "rope"
    """How attention knows positions: rope, learned or none."""
    forward_dtype: str = "bfloat16"
    """Number type of the forward pass; weights are float32."""
    mlp_t: bool = False
    """Mix positions by an MLP instead of attention; the length of the sequence is then fixed."""
    no_ACT_continue: bool = True
    """Learn when to halt from correctness alone. False adds HRM's Q-learning of whether to continue, at a second pass per step."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMS norm."""
    rope_theta: float = 10000.0
    """Base of rotary positions."""
    lora_rank: int = 0
    """Rank of LoRA on every linear map; 0: none."""
    lora_alpha: float = 1.0
    """LoRA's product is multiplied by ``lora_alpha / lora_rank``."""
    lora_dropout: float = 0.0
    """Dropout before LoRA's first factor (in training)."""
    lora_train_base: bool = False
    """Whether the linear maps under LoRA train too."""
    lora_train_bias: bool = False
    """Whether the biases of linear maps train under LoRA."""
    puzzle_emb_dropout: float = 0.0
    """Probability that the puzzle row of a sequence is left out (in training)."""
    grid_token_dropout: float = 0.0
    """Dropout on the embeddings of the cells (in training)."""
    grid_noise_prob: float = 0.0
    """Probability that noise is put into an input grid (in training, by the loader)."""
    grid_noise_fraction: float = 0.0
    """Share of the cells that noise changes."""

    @property
    def row_size(self) -> int:
        """Length of a row of the puzzle table; 0 for none."""
        return self.hidden_size if self.puzzle_emb_ndim is None else self.puzzle_emb_ndim

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


def check_arch(arch: ArchConfig) -> None:
    """Raises `UsageError` for an architecture that cannot be computed."""
    _at_least(1, arch, "H_cycles", "L_cycles", "L_layers", "hidden_size", "num_heads", "halt_max_steps")
    _at_least(0, arch, "H_layers", "puzzle_emb_len", "row_size", "lora_rank")
    if arch.halt_max_steps_eval is not None:
        _at_least(1, arch, "halt_max_steps_eval")
    for name in SHARES:
        if not 0 <= getattr(arch, name) <= 1:
            raise UsageError(f"arch.{name} is {getattr(arch, name)}.", "Give a probability from 0 to 1.")
    _one_of("pos_encodings", arch.pos_encodings, POSITIONS)
    _one_of("forward_dtype", arch.forward_dtype, DTYPES)
    _one_of("loss.name", arch.loss.name, (LossConfig().name,))
    _one_of("loss.loss_type", arch.loss.loss_type, ("stablemax_cross_entropy", "softmax_cross_entropy"))
    if not arch.mlp_t:
        _check_heads(arch)
    _check_row(arch)


def _check_heads(arch: ArchConfig) -> None:
    if arch.num_heads > arch.hidden_size:
        raise UsageError(f"arch.num_heads {arch.num_heads} is more than arch.hidden_size {arch.hidden_size}.", "Use fewer heads.")
    if arch.pos_encodings == "rope" and (arch.hidden_size // arch.num_heads) % 2:
        raise UsageError(
            f"Rotary positions need heads of an even width, and {arch.hidden_size} over {arch.num_heads} heads is odd.",
            "Change arch.num_heads or arch.pos_encodings.",
        )


def _check_row(arch: ArchConfig) -> None:
    room = arch.puzzle_tokens * arch.hidden_size
    if not arch.row_size and arch.puzzle_tokens:
        raise UsageError(
            f"arch.puzzle_emb_ndim is 0 (no puzzle table), and arch.puzzle_emb_len is {arch.puzzle_emb_len}.", "Set arch.puzzle_emb_len=0."
        )
    if arch.row_size > room:
        raise UsageError(
            f"A puzzle row of {arch.row_size} (arch.puzzle_emb_ndim) does not fit into {arch.puzzle_tokens} tokens of {arch.hidden_size}.",
            "Set arch.puzzle_emb_len=0, which takes as many tokens as are needed.",
        )


def _at_least(least: int, arch: ArchConfig, *names: str) -> None:
    for name in names:
        if getattr(arch, name) < least:
            raise UsageError(f"arch.{name} is {getattr(arch, name)}.", f"Give {least} or more.")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"arch.{name} is {value!r}.", f"Choose one of {', '.join(choices)}.")
