"""The nouns of the project, frozen, and the one legend of axis suffixes.

Axis suffixes of nested collections: ``_P`` problem (question), ``_G`` sample in a group, ``_T`` token,
``_C`` equivalence class of answers, ``_V`` vocabulary, ``_D`` hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["math", "number", "choice"]
"""How an answer is read from text: a mathematical object, a number (the last one counts), or a choice letter."""

FinishReason = Literal["stop", "length"]
"""``stop``: the model ended its turn; ``length``: the text was cut at the token limit."""

Invalid = Literal["unparsable", "cut", "too_long", "timeout", "error"]
"""Why a sample has no answer: nothing found, cut at the token limit, rejected by static limits, or the judge gave up."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of a data set without its label."""

    id: str
    index: int
    text: str
    kind: AnswerKind
    row: int
    """1-based row in the file it came from."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question ready to be sampled: the prompt is tokenised once, here, for sampler and learner alike."""

    id: str
    index: int
    kind: AnswerKind
    prompt_T: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample: ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_tokens`` of a response."""

    temperature: float
    top_p: float = 1.0
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled response.

    ``logprob_T``: log-probability of each sampled token under the sampler at the sampling temperature
    (before top-p), same length as ``token_T``; the end-of-turn token is included when it was sampled.
    """

    seed: int
    version: int
    token_T: tuple[int, ...]
    logprob_T: tuple[float, ...]
    finish: FinishReason
    text: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """The responses to one prompt, in seed order."""

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]

    @property
    def n_tokens(self) -> int:
        """Response tokens of the whole group."""
        return sum(len(r.token_T) for r in self.rollout_G)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one sample answered: ``text`` is the normal form, or None with the reason in ``invalid``."""

    text: str | None
    invalid: Invalid | None = None

    def __post_init__(self) -> None:
        assert (self.text is None) == (self.invalid is not None), "an answer has a text or a reason, never both"


@dataclass(frozen=True, kw_only=True)
class Ballots:
    """The answers of a group and their equivalence classes.

    ``class_G``: class index of each sample, or None where the sample has no answer.
    ``representative_C``: normal form of the first member of each class, in order of first appearance.
    """

    answer_G: tuple[Answer, ...]
    class_G: tuple[int | None, ...]
    representative_C: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Election:
    """The result of a vote over equivalence classes.

    ``winner``: class index, or None when the vote abstains (nobody voted, or a tie under the abstaining policy).
    ``share_C``: share of the vote weight of each class, summing to 1 where anybody voted.
    ``margin``: share of the winner (or of the leaders of a tie) less the share of the runner-up; 0 in a tie.
    ``agreement_G``: 1.0 where a sample is in the winning class, else 0.0: TTRL's pseudo-reward.
    ``majority_ratio``: votes for the winner over all samples, the voteless included (arXiv 2504.16084).
    """

    winner: int | None
    answer: str | None
    share_C: tuple[float, ...]
    count_C: tuple[int, ...]
    margin: float
    tied_C: tuple[int, ...] = ()
    voters: int
    samples: int
    agreement_G: tuple[float, ...]
    majority_ratio: float

    @property
    def abstains(self) -> bool:
        """Nobody won."""
        return self.winner is None

    @property
    def unanimous(self) -> bool:
        """Every sample, the voteless included, is in the winning class: no reward differs from another."""
        return self.winner is not None and all(a == 1.0 for a in self.agreement_G)


DeltaKind = Literal["none", "lora", "full"]


@dataclass(frozen=True, kw_only=True)
class DeltaSpec:
    """What a fork may change: nothing, a LoRA adapter or all weights; and how its optimiser steps.

    ``total_steps`` is the horizon of the learning-rate schedule. ``seed`` seeds LoRA's A matrices.
    """

    kind: DeltaKind
    lr: float = 0.0
    total_steps: int = 1
    warmup_ratio: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """What an update trains on: responses to one prompt, and one advantage for each.

    The responses come from the very weights that are updated, so the ratio is 1 and no separate pass is made for it.
    """

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]
    advantage_G: tuple[float, ...]
    temperature: float

    @property
    def n_tokens(self) -> int:
        """Response tokens that carry loss."""
        return sum(len(r.token_T) for r in self.rollout_G)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What an update minimises: a policy loss of verl's registry, plus KL to the base.

    Names and defaults are verl's (`verl.trainer.ppo.core_algos`) and TTRL's scripts (arXiv 2504.16084).
    """

    policy_loss: str = "vanilla"
    loss_aggregation: str = "token-mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_dual: float = 3.0
    kl_coef: float = 0.001
    kl_estimator: str = "low_var_kl"
    max_logprob_gap: float = 0.5


@dataclass(frozen=True, kw_only=True)
class UpdateStats:
    """What one update measured. Log-probs are natural logarithms per token.

    ``logprob_gap_mean``, ``logprob_gap_max``, ``logprob_correlation``: learner against sampler on the sampled tokens.
    """

    loss: float
    grad_norm: float
    lr: float
    kl_to_base: float | None
    logprob_gap_mean: float
    logprob_gap_max: float
    logprob_correlation: float | None
    tokens: int
    micro_batches: int
    seconds: float


StopReason = Literal["unanimous", "unparsable", "tie", "agreement", "kl_budget", "steps", "no_adaptation"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a method: what was sampled, what was elected, and the update that followed (None: it stopped)."""

    index: int
    version: int
    group: Group
    ballots: Ballots
    election: Election
    majority: Election
    reward_G: tuple[float, ...]
    update: UpdateStats | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the adaptation to one question ended; its steps were observed as they happened."""

    stop: StopReason


@dataclass(frozen=True, kw_only=True)
class Poll:
    """An evaluation of one policy on one question: ``k`` samples and, where asked for, a greedy response.

    ``ballots`` judges the samples and, last, the greedy response together; ``election`` is over the samples alone.
    """

    name: Literal["base", "vote_same_tokens", "adapted"]
    sampling: Sampling
    group: Group
    greedy: Rollout | None
    ballots: Ballots
    election: Election


QuestionStatus = Literal["done", "failed", "diverged", "oom"]
