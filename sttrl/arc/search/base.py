"""What all searches share: what they are asked, what they find, and what they say about replies that they left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sttrl.types import Request, Rollout


class Sampler(Protocol):
    """The part of a policy that a search uses."""

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """One response to each request, in their order and in one batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One prompt, such as a test input under a view.

    ``guess_G``: replies that may be good, such as those of other views. The threshold search has them scored instead of decoding them;
    it finds the same without them. ``seed_G``: the seeds of the search ``sample``, one for each reply.
    """

    prompt_T: tuple[int, ...]
    guess_G: tuple[tuple[int, ...], ...] = ()
    seed_G: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply with the log-probs of its tokens. ``ended``: its last token is an end token; if not, it was cut at ``max_tokens``."""

    token_T: tuple[int, ...]
    logprob_T: tuple[float, ...]
    ended: bool = True

    @property
    def nll(self) -> float:
        """Minus the log-prob of the whole reply, in nats."""
        return -math.fsum(self.logprob_T)


CutReason = Literal["requests", "tokens", "time", "top_logprobs", "context", "forbidden"]
"""Why replies may be missing: a limit; tokens that were likely enough, and not among the reported ones; the engine had no room for a
longer response; or samples with a forbidden token."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a search left out: how many branches (or samples), and a bound on the probability of all replies that begin like them."""

    reason: CutReason
    branches: int
    mass: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The replies to one prompt.

    ``reply_G``: the likeliest first; those of ``sample`` in the order of their seeds. ``cut``: empty if nothing was left out.
    ``requests`` and ``tokens``: what the engine was asked for, and what it decoded.
    """

    reply_G: tuple[Reply, ...]
    cut: tuple[Cut, ...] = ()
    requests: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one prompt may cost: requests to the engine, and tokens that it decodes. None: no limit."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """Settings of the threshold search.

    ``min_prob``: replies with a probability strictly above it are wanted; 0.1 is ARChitects' (2024). ``min_prob_greedy``: the same for
    the one reply whose every token is the likeliest one (Kaggle 2024); None: no exception. No flag sets it: recorded results of Kaggle's
    search are checked with it.
    """

    min_prob: float = 0.1
    min_prob_greedy: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("min_prob", self.min_prob), ("min_prob_greedy", self.min_prob_greedy)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is {value}; it must be above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Settings of the search ``sample``."""

    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Settings of the beam search. ``width``: beams that are kept, and replies that are returned at most."""

    width: int = 2

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is {self.width}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of a search.

    ``max_tokens`` of a reply, its end token included. ``end_T``: every token at which the engine ends a response. ``allowed``: the
    tokens that a reply may hold, end tokens included; None: all. Log-probs are those of the full vocabulary all the same.
    """

    max_tokens: int
    end_T: frozenset[int]
    allowed: frozenset[int] | None = None
    limits: Limits = field(default_factory=Limits)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    beam: BeamConfig = field(default_factory=BeamConfig)

    def allows(self, token: int) -> bool:
        """Whether a reply may hold the token."""
        return self.allowed is None or token in self.allowed


def never() -> bool:
    """The deadline of a search that has none."""
    return False


class Search(Protocol):
    """A search: the replies to each prompt, in their order. ``out_of_time`` is asked before every batch of requests."""

    async def __call__(
        self,
        policy: Sampler,
        asks: Sequence[Ask],
        config: SearchConfig,
        *,
        out_of_time: Callable[[], bool] = never,
    ) -> tuple[Found, ...]:
        """Search the replies to all prompts together."""
        ...
