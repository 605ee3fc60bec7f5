"""Optimiser, adapter, and the gate of every update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from sttrl.config.rules import FRACTION, NOT_NEGATIVE, Group, Rule, at_least
from sttrl.errors import UsageError
from sttrl.types import TrainableModule

GAP = Rule(lambda value: value > 0, "Use nats a token, above 0; inf opens the gate.")
WARMUP = Rule(lambda value: 0 <= value <= 1, "It is a fraction of the steps: at most 1.")


@dataclass(frozen=True, kw_only=True)
class UpdateSettings(Group):
    """Optimiser, adapter, and the gate of every update."""

    without: ClassVar[frozenset[str]] = frozenset({"stored"})

    lr: Annotated[float | None, NOT_NEGATIVE] = None
    """Learning rate; unset: sttrl and ttrl 1e-3 with LoRA (derived) and 5e-7 with full weights (TTRL); ttft 1e-4, 5e-5 with
    --continuous; slot 0.1; memo 1e-5; ttt 5e-4 (derived)."""
    lr_schedule: Literal["constant", "cosine"] | None = None
    """Schedule over the steps of a fork, of the whole run with --continuous; unset: ttt cosine, others constant (derived; TTRL: cosine)."""
    warmup_ratio: Annotated[float | None, WARMUP] = None
    """Fraction of the steps over which the learning rate rises; unset: ttt 0.1, others 0 (derived; TTRL: 0.03 of a whole training)."""
    lowest_lr: Annotated[float | None, FRACTION] = None
    """Where the cosine ends, as a fraction of the learning rate; unset: ttt 0.05, others 0 (derived)."""
    adam_betas: tuple[float, float] | None = None
    """AdamW's two decay rates; unset: ttt 0.9 0.95 (derived), others 0.9 0.999 (TTRL)."""
    weight_decay: Annotated[float | None, NOT_NEGATIVE] = None
    """AdamW weight decay; unset: 0.01 (TTRL, MEMO), slot 1e-8 (its README), ttt 0."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """AdamW, or AdamW with its moments in 8 bits. The latter needs the package bitsandbytes."""
    kl_coef: Annotated[float, NOT_NEGATIVE] = 0.001
    """Weight of the KL divergence to the base in the loss (TTRL: 0.001, low_var_kl)."""
    max_logprob_gap: Annotated[float, GAP] = 0.5
    """Gate: refuse an update when learner and sampler differ by more nats a token than this, on average."""
    lora_rank: Annotated[int, at_least(0)] = 16
    """Rank of the LoRA adapter; 0 trains full weights (derived; TTRL trains full weights)."""
    lora_alpha: Annotated[int, at_least(1)] = 32
    """LoRA's scale is alpha / rank."""
    lora_rank_stabilised: bool = False
    """Scale LoRA by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that LoRA changes, such as q_proj v_proj; unset: all linear ones but the head. embed_tokens and lm_head are
    allowed too, unless the model ties them."""
    lora_trainable_modules: tuple[TrainableModule, ...] = ()
    """Train these whole beside LoRA: embed_tokens, lm_head. Where the model ties the two, embed_tokens trains both."""
    embedding_lr: Annotated[float | None, NOT_NEGATIVE] = None
    """Learning rate of embed_tokens and lm_head, whether trained whole or by LoRA; unset: as --lr."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adam_betas is not None and not all(0 <= beta < 1 for beta in self.adam_betas):
            raise UsageError(f"--adam_betas is {' '.join(map(str, self.adam_betas))}.", "Use two numbers from 0 to below 1.")
        for name in ("lora_rank_stabilised", "lora_targets", "lora_trainable_modules") if self.lora_rank == 0 else ():
            if value := getattr(self, name):
                raise UsageError(
                    f"--{name} {value} with --lora_rank 0: there is no adapter.", f"Leave out --{name}, or use --lora_rank 16."
                )
        if both := sorted(set(self.lora_targets) & set(self.lora_trainable_modules)):
            too = f"it is among --lora_trainable_modules {self.lora_trainable_modules} too"
            raise UsageError(f"--lora_targets {both[0]}: {too}.", "Leave one of them out.")
        ends = {*self.lora_trainable_modules, *(set(self.lora_targets) & set(get_args(TrainableModule)))}
        if self.embedding_lr is not None and not ends:
            raise UsageError(
                f"--embedding_lr {self.embedding_lr} does nothing: no embeddings are trained apart from the rest.",
                "Leave it out, or add --lora_trainable_modules embed_tokens.",
            )
