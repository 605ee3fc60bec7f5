"""What is trained: forks, rows, objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from sttrl.types.problems import Group, Rollout

T = TypeVar("T")
TrainableModule = Literal["embed_tokens", "lm_head"]
"""What can be trained whole beside an adapter: the embeddings of the tokens, and the head that makes logits of the last hidden state."""

ParameterGroup = Literal["main", "embedding"]
"""Parameters that have a learning rate of their own: what a `TrainableModule` holds is ``embedding``, everything else is ``main``."""

DeltaKind = Literal["none", "lora", "full", "vector"]
"""Nothing, a LoRA adapter, all weights, or a vector added to the last hidden state (SLOT)."""


@dataclass(frozen=True, kw_only=True)
class DeltaSpec:
    """What a fork may change, and the settings of its optimiser, AdamW.

    ``lr``: the learning rate of each group of parameters that the fork has. ``total_steps`` is the horizon of its schedule; a cosine ends
    at ``lowest_lr`` of the rate. ``seed`` seeds LoRA's A matrices. ``critic_lr`` is the learning rate of the fork's critic, where the
    engine has one.
    """

    kind: DeltaKind
    lr: Mapping[ParameterGroup, float] = field(default_factory=dict)
    total_steps: int = 1
    warmup_ratio: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    lowest_lr: float = 0.0
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    critic_lr: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """The tokens of one training row, and a number for each of them in every other field.

    ``weight_T``: the token's weight in the loss; a token with weight 0 is only input. The loss ``nll`` takes any weights that are not
    negative, the other losses take 0 and 1. ``sampler_logprob_T``: the sampler's log-probs, if the row was sampled from the weights that
    are updated now; the first step compares them with the learner's. ``advantage_T``: for the loss ``policy``. ``value_T``: the critic's
    estimates. ``return_T``: the returns that the critic learns. ``base_logprob_T``: the base's log-probs, if a reference worker gave them.
    """

    token_T: tuple[int, ...]
    weight_T: tuple[float, ...]
    sampler_logprob_T: tuple[float, ...] | None = None
    advantage_T: tuple[float, ...] | None = None
    value_T: tuple[float, ...] | None = None
    return_T: tuple[float, ...] | None = None
    base_logprob_T: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        assert len(self.token_T) == len(self.weight_T) > 0, "a weight for every token, and at least one token"

    @classmethod
    def of(cls, rollout: Rollout, advantage_T: tuple[float, ...] | None = None) -> Row:
        """A sampled response, every token with weight 1."""
        weight_T = (1.0,) * len(rollout.token_T)
        return cls(token_T=rollout.token_T, weight_T=weight_T, sampler_logprob_T=rollout.logprob_T, advantage_T=advantage_T)


@dataclass(frozen=True, kw_only=True)
class TrainGroup:
    """Rows that follow the same prefix of at least one token, which carries no loss. Rows of different prompts are several groups.

    ``problem``: successive groups with the same number are of one problem under several views, and stay in one mini-batch; None: alone.
    """

    prefix_T: tuple[int, ...]
    row_G: tuple[Row, ...]
    problem: int | None = None

    @classmethod
    def each(cls, group: Group, row_G: Sequence[Row], problem: int = 0) -> tuple[TrainGroup, ...]:
        """The rows of a group's responses: a training group for each prompt that was asked, in the order in which they were asked first.

        `in_sample_order` undoes the order.
        """
        by_prompt: dict[tuple[int, ...], list[Row]] = {}
        for rollout, row in zip(group.rollout_G, row_G, strict=True):
            by_prompt.setdefault(group.prompt_of(rollout), []).append(row)
        return tuple(cls(prefix_T=prompt_T, row_G=tuple(of_it), problem=problem) for prompt_T, of_it in by_prompt.items())

    @classmethod
    def of(cls, group: Group) -> tuple[TrainGroup, ...]:
        """The responses of a group, every token with weight 1, as `each` orders them."""
        return cls.each(group, tuple(map(Row.of, group.rollout_G)))

    @property
    def n_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(weight > 0 for row in self.row_G for weight in row.weight_T)


def in_sample_order(group: Group, found: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """What was found for each row of each of `TrainGroup.each`, in the order of the group's samples."""
    prompts = list(dict.fromkeys(map(group.prompt_of, group.rollout_G)))
    next_of = [iter(rows) for rows in found]
    return tuple(next(next_of[prompts.index(group.prompt_of(rollout))]) for rollout in group.rollout_G)


def whole_rows(rows: Sequence[Row]) -> tuple[TrainGroup, ...]:
    """Whole rows as groups: those with the same first token share a group, whose prefix is that token, and so the learner's passes."""
    by_first: dict[int, list[Row]] = {}
    for row in rows:
        by_first.setdefault(row.token_T[0], []).append(Row(token_T=row.token_T[1:], weight_T=row.weight_T[1:]))
    return tuple(TrainGroup(prefix_T=(first,), row_G=tuple(of_it)) for first, of_it in by_first.items())


class RowSet(Protocol):
    """The rows of a training set, numbered from 0 and made when they are needed. They are the same in every attempt."""

    def __len__(self) -> int:
        """Rows of an epoch."""
        ...

    def order(self, epoch: int) -> Sequence[int]:
        """The numbers of the rows in the order of an epoch."""
        ...

    def row(self, number: int, epoch: int) -> Row | None:
        """A row as it is in an epoch; None if it cannot be trained on, for example because it is too long."""
        ...


LossKind = Literal["policy", "nll", "marginal_entropy"]
"""``policy``: a policy loss of verl's registry, and KL to the base. ``nll``: negative log-likelihood, the mean over all tokens by
their weights. ``marginal_entropy``: entropy of the last token's distribution averaged over the rows (MEMO)."""


ForkRule = Literal["otsu", "top"]
"""Which tokens of a response are forking: those above Otsu's threshold of the entropies, or a share with the highest."""
EntropyBand = Literal["mad", "quantiles"]
"""The band of the forking tokens' entropy: from the median less a scaled median deviation, or from the 10 % quantile, to the median."""


@dataclass(frozen=True, kw_only=True)
class Forking:
    """Only forking tokens carry the policy gradient and the KL term (SPINE, arXiv 2511.17938).

    ``share`` of a response's tokens are forking by the rule ``top``. ``band``: None: the entropy is free. ``low_coef``, ``high_coef``: loss
    for each nat below and above the band.
    """

    rule: ForkRule = "otsu"
    share: float = 0.2
    band: EntropyBand | None = None
    low_coef: float = 0.01
    high_coef: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What an update minimises, at which temperature, and in how many optimiser steps.

    Names and defaults are verl's (`verl.trainer.ppo.core_algos`) and TTRL's scripts (arXiv 2504.16084). An update passes
    ``ppo_epochs`` times over the batch, each time in at most ``mini_batches`` steps; with more than one step in all, old log-probs
    are computed before the first. ``horizon``: what ``seq-mean-token-sum-norm`` divides by, the same in every step: the tokens that
    a response may have (Dr. GRPO, arXiv 2503.20783). ``tis_cap``: weigh each token's policy loss by the ratio of learner to sampler, at
    most this; None: by 1. ``forking``: which tokens carry the gradient; None: all.
    """

    loss: LossKind = "policy"
    temperature: float = 1.0
    policy_loss: str = "vanilla"
    loss_aggregation: str = "token-mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_dual: float = 3.0
    kl_coef: float = 0.001
    kl_estimator: str = "low_var_kl"
    max_logprob_gap: float = 0.5
    ppo_epochs: int = 1
    mini_batches: int = 1
    horizon: int = 1
    tis_cap: float | None = None
    forking: Forking | None = None


@dataclass(frozen=True, kw_only=True)
class UpdateStats:
    """What one update measured. Log-probs are natural logarithms per token.

    ``loss`` and ``grad_norm`` are means over the optimiser steps, ``kl_to_base`` and the comparison with the sampler are the
    first step's. ``lr``, ``embedding_lr``: the learning rate of each group of parameters. ``logprob_gap_mean``, ``logprob_gap_max``,
    ``logprob_correlation``: learner against sampler on the sampled tokens; None where the rows have no log-probs of the sampler.
    ``value_loss``: the critic's. ``tis_weight``: the mean weight of a token where ``tis_cap`` is set. ``forking_share``: the share of the
    tokens that are forking, where the others are masked. ``tokens`` that carried loss, masked ones included, counted at every pass.
    """

    loss: float
    grad_norm: float
    lr: float
    kl_to_base: float | None
    logprob_gap_mean: float | None
    logprob_gap_max: float | None
    logprob_correlation: float | None
    tokens: int
    micro_batches: int
    seconds: float
    optimizer_steps: int = 1
    clip_fraction: float | None = None
    value_loss: float | None = None
    embedding_lr: float | None = None
    tis_weight: float | None = None
    forking_share: float | None = None
