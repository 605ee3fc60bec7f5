"""The types that all packages share, and the list of axis suffixes.

Axis suffixes: ``_P`` problem, ``_G`` sample in a group, ``_T`` token, ``_C`` class of equal answers, ``_V`` vocabulary, ``_D`` hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

AnswerKind = Literal["math", "number", "choice"]
"""How an answer is read from text: a mathematical object, a number (the last one counts), or a choice letter."""

FinishReason = Literal["stop", "length"]
"""``stop``: the model ended its turn; ``length``: the text was cut at the token limit."""

Invalid = Literal["unparsable", "cut", "too_long", "timeout", "error"]
"""Why a sample has no answer: nothing found, cut at the token limit, rejected by static limits, or the judge gave up."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem of any kind, ready to be sampled: the prompt is tokenised once, here, for sampler and learner alike.

    ``prompt_T``: the prompt that stands for the problem. ``view_V``: other ways to ask the same.
    """

    id: str
    index: int
    prompt_T: tuple[int, ...]
    view_V: tuple[tuple[int, ...], ...] = ()

    @property
    def asked_V(self) -> tuple[tuple[int, ...], ...]:
        """Every prompt of the problem that is sampled."""
        return (self.prompt_T,)

    @property
    def turns(self) -> int:
        """How many different prompts the steps of a method ask in turn."""
        return 1

    def prompt_of(self, step: int) -> tuple[int, ...]:
        """The prompt that the step with this 0-based index asks."""
        return self.prompt_T


MOST_TOP_LOGPROBS = 64
"""The largest ``top_logprobs``. A token with a probability above 1/64 is always among the 64 likeliest."""

TopTokens = tuple[tuple[int, float], ...]
"""The likeliest tokens at one position with their log-probabilities, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample: ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_tokens`` of a response.

    ``top_logprobs``: how many of the likeliest tokens are reported at each position, at most `MOST_TOP_LOGPROBS`.
    """

    temperature: float
    top_p: float = 1.0
    max_tokens: int
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS, f"top_logprobs is {self.top_logprobs}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response that is asked for. The same prompt, sampling, seed and weights give the same response."""

    prompt_T: tuple[int, ...]
    sampling: Sampling
    seed: int

    @classmethod
    def each(cls, prompt_T: tuple[int, ...], sampling: Sampling, seeds_G: Sequence[int]) -> tuple[Request, ...]:
        """A request for each seed, all with the same prompt and sampling."""
        return tuple(cls(prompt_T=prompt_T, sampling=sampling, seed=seed) for seed in seeds_G)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled response.

    ``logprob_T``: log-probability of each sampled token under the sampler at the sampling temperature
    (before top-p; a greedy response is scored at temperature 1), same length as ``token_T``; the end-of-turn token is included
    when it was sampled. ``top_T``: the likeliest tokens at each position, scored alike, where the sampling asked for them.
    """

    seed: int
    version: int
    token_T: tuple[int, ...]
    logprob_T: tuple[float, ...]
    finish: FinishReason
    text: str
    top_T: tuple[TopTokens, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """The responses to one prompt, in the order of their seeds."""

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]

    @property
    def n_tokens(self) -> int:
        """Response tokens of the whole group."""
        return sum(len(r.token_T) for r in self.rollout_G)


Stat = Literal["logprob", "entropy", "top_confidence", "self_certainty", "sum_pi_squared", "logit", "logsumexp"]
"""What a pass over sampled tokens can measure: the fields of `TokenStats`."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What to measure, and at which temperature. ``energy_temperature`` is T of ``logsumexp``; ``top_k`` is for ``top_confidence``."""

    want: frozenset[Stat] = frozenset({"logprob"})
    temperature: float = 1.0
    energy_temperature: float = 1.0
    top_k: int = 20


@dataclass(frozen=True, kw_only=True)
class TokenStats:
    """Statistics of a row, one number for each of its tokens; None where a statistic was not asked for.

    Of the distribution at the measure's temperature, with logits z at it: ``logprob_T`` log p of the
    token; ``entropy_T`` in nats; ``top_confidence_T`` minus the mean log p of the k likeliest tokens (arXiv 2508.15260);
    ``self_certainty_T`` logsumexp(z) - mean(z) (arXiv 2502.18581); ``sum_pi_squared_T`` sum of p squared. Of the raw logits:
    ``logit_T`` that of the token; ``logsumexp_T`` T logsumexp(z / T) at the energy temperature T.
    """

    logprob_T: tuple[float, ...] | None = None
    entropy_T: tuple[float, ...] | None = None
    top_confidence_T: tuple[float, ...] | None = None
    self_certainty_T: tuple[float, ...] | None = None
    sum_pi_squared_T: tuple[float, ...] | None = None
    logit_T: tuple[float, ...] | None = None
    logsumexp_T: tuple[float, ...] | None = None


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
    ``stats_G``: token statistics of each sample, where a vote weighs samples by them.
    """

    answer_G: tuple[Answer, ...]
    class_G: tuple[int | None, ...]
    representative_C: tuple[str, ...]
    stats_G: tuple[TokenStats, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Election:
    """The result of a vote over equivalence classes.

    ``winner``: class index, or None when the vote abstains (nobody voted, or a tie under the abstaining policy).
    ``share_C``: each class's share of the vote weight. The shares sum to 1, or are all 0 if nobody voted.
    ``margin``: the winner's share minus the runner-up's; 0 in a tie.
    ``in_winner_G``: 1.0 for a sample in the winning class, else 0.0.
    ``majority_ratio``: samples in the winning class over all samples, including those without an answer (arXiv 2504.16084).
    """

    winner: int | None
    answer: str | None
    share_C: tuple[float, ...]
    count_C: tuple[int, ...]
    margin: float
    tied_C: tuple[int, ...] = ()
    voters: int
    samples: int
    in_winner_G: tuple[float, ...]
    majority_ratio: float

    @property
    def abstains(self) -> bool:
        """Nobody won."""
        return self.winner is None

    @property
    def unanimous(self) -> bool:
        """Every sample is in the winning class; a sample without an answer is not."""
        return self.winner is not None and all(a == 1.0 for a in self.in_winner_G)


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
    """Rows that follow the same prefix of at least one token, which carries no loss. Rows of different prompts are several groups."""

    prefix_T: tuple[int, ...]
    row_G: tuple[Row, ...]

    @classmethod
    def of(cls, group: Group) -> TrainGroup:
        """The responses to a prompt, every token with weight 1."""
        return cls(prefix_T=group.prompt_T, row_G=tuple(map(Row.of, group.rollout_G)))

    @property
    def n_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(weight > 0 for row in self.row_G for weight in row.weight_T)


LossKind = Literal["policy", "nll", "marginal_entropy"]
"""``policy``: a policy loss of verl's registry, and KL to the base. ``nll``: negative log-likelihood, the mean over all tokens by
their weights. ``marginal_entropy``: entropy of the last token's distribution averaged over the rows (MEMO)."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What an update minimises, at which temperature, and in how many optimiser steps.

    Names and defaults are verl's (`verl.trainer.ppo.core_algos`) and TTRL's scripts (arXiv 2504.16084). An update passes
    ``ppo_epochs`` times over the batch, each time in at most ``mini_batches`` steps; with more than one step in all, old log-probs
    are computed before the first. ``horizon``: what ``seq-mean-token-sum-norm`` divides by, the same in every step: the tokens that
    a response may have (Dr. GRPO, arXiv 2503.20783).
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


@dataclass(frozen=True, kw_only=True)
class UpdateStats:
    """What one update measured. Log-probs are natural logarithms per token.

    ``loss`` and ``grad_norm`` are means over the optimiser steps, ``kl_to_base`` and the comparison with the sampler are the
    first step's. ``lr``, ``embedding_lr``: the learning rate of each group of parameters. ``logprob_gap_mean``, ``logprob_gap_max``,
    ``logprob_correlation``: learner against sampler on the sampled tokens; None where the rows have no log-probs of the sampler.
    ``value_loss``: the critic's. ``tokens`` that carried loss, counted at every pass.
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


StopReason = Literal["unanimous", "unparsable", "tie", "agreement", "kl_budget", "flip_rate", "steps", "no_adaptation"]
"""Why adapting stopped; docs/run.md explains each. ``agreement``: ``--stop_agreement`` was reached."""

GateReason = Literal["margin", "agreement"]
"""The gate that prevented an update: ``--min_margin``, ``--min_agreement``."""


@dataclass(frozen=True, kw_only=True)
class HeldVote:
    """The samples of a step, their answers, and the result of the vote.

    ``election``: the result of the run's voting function. ``majority``: the result of the majority vote over the same answers.
    ``greedy``: a greedy response, if the advantage estimator needs one (ReMax); ``baseline`` is its reward.
    """

    group: Group
    ballots: Ballots
    election: Election
    majority: Election
    reward_G: tuple[float, ...]
    greedy: Rollout | None = None
    baseline: float | None = None

    @property
    def n_tokens(self) -> int:
        """Response tokens sampled for this vote."""
        return self.group.n_tokens + (len(self.greedy.token_T) if self.greedy is not None else 0)

    @property
    def elected(self) -> dict[str, Rollout]:
        """The different texts of the elected answer, each with a sample that gave it; empty if the vote abstains."""
        judged = zip(self.ballots.answer_G, self.ballots.class_G, self.group.rollout_G, strict=True)
        return {answer.text: r for answer, c, r in judged if answer.text is not None and c == self.election.winner}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a method: the vote it held, if it held one, and the update that followed (None: none did).

    ``gate``: the gate that prevented the update, if one did.
    """

    index: int
    version: int
    vote: HeldVote | None
    update: UpdateStats | None
    gate: GateReason | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Why the adaptation to one question stopped."""

    stop: StopReason


QuestionStatus = Literal["done", "failed", "diverged", "oom"]
