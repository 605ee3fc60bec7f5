"""Problems, and what is sampled for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "unlikely"]
"""``stop``: the model ended its turn; ``length``: the text was cut at the token limit; ``unlikely``: it was cut before the token with which
it became less likely than `Sampling.lowest_logprob`."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem of any kind, ready to be sampled: the prompt is tokenised once, here, for sampler and learner alike.

    ``prompt_T``: the prompt that stands for the problem. ``begun_V``: prompts that ask the same in other words, each with the beginning
    of an answer (MEMO).
    """

    id: str
    index: int
    prompt_T: tuple[int, ...]
    begun_V: tuple[tuple[int, ...], ...] = ()

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of the problem that is sampled."""
        return len(self.prompt_T)

    @property
    def every_prompt(self) -> tuple[tuple[int, ...], ...]:
        """The prompts of the problem that are known before a run."""
        return (self.prompt_T, *self.begun_V)

    @property
    def turns(self) -> int:
        """How many different prompts the steps of a method ask in turn."""
        return 1

    def prompt_of(self, step: int) -> tuple[int, ...]:
        """The prompt that the step with this 0-based index asks."""
        return self.prompt_T

    def prompts_of(self, step: int) -> tuple[tuple[int, ...], ...]:
        """The prompts of the views over which the samples of a step are spread; the first is `prompt_of`."""
        return (self.prompt_of(step),)

    @property
    def views_wanted(self) -> int:
        """How many views the base policy writes before the problem is asked."""
        return 0

    def view_requests(self, seeds_G: Sequence[int]) -> tuple[Request, ...]:
        """What the base policy is asked for these views."""
        return ()

    @property
    def view_count(self) -> int:
        """How many views the problem has now, the plain one included."""
        return 1

    def with_views(self, texts: Sequence[str]) -> Problem:
        """The problem with the views that the base has written; an empty text stands for one that it did not finish."""
        return self

    def view_key(self, view: int) -> str | None:
        """The name of a view in records; None for a problem that is asked in one way only."""
        return None


MOST_TOP_LOGPROBS = 64
"""The largest ``top_logprobs``. A token with a probability above 1/64 is always among the 64 likeliest."""

TopTokens = tuple[tuple[int, float], ...]
"""The likeliest tokens at one position with their log-probabilities, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample: ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_tokens`` of a response.

    ``top_logprobs``: how many of the likeliest tokens are reported at each position, at most `MOST_TOP_LOGPROBS`. ``lowest_logprob``: a
    response ends where its log-probability falls below this; None: nowhere. ``reasoning_steps``: whether to report which step each token
    is in.
    """

    temperature: float
    top_p: float = 1.0
    max_tokens: int
    top_logprobs: int = 0
    lowest_logprob: float | None = None
    reasoning_steps: bool = False

    def __post_init__(self) -> None:
        assert 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS, f"top_logprobs is {self.top_logprobs}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response that is asked for. The same prompt, sampling, seed and weights give the same response.

    ``view``: the number of the view of its problem whose prompt this is.
    ``given_T``: the response, where only its log-probs and the likeliest tokens at its positions are asked for; nothing is drawn then.
    The model must have at most `MOST_TOP_LOGPROBS` tokens. ``begun_T``: the beginning of the response, which is not sampled again: the
    rollout has the tokens that follow it, and the text of the whole response.
    """

    prompt_T: tuple[int, ...]
    sampling: Sampling
    seed: int
    given_T: tuple[int, ...] = ()
    begun_T: tuple[int, ...] = ()
    view: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.seed < 1 << 63, f"the seed is {self.seed}"

    @classmethod
    def each(cls, prompt_T: tuple[int, ...], sampling: Sampling, seeds_G: Sequence[int]) -> tuple[Request, ...]:
        """A request for each seed, all with the same prompt and sampling."""
        return tuple(cls(prompt_T=prompt_T, sampling=sampling, seed=seed) for seed in seeds_G)

    @classmethod
    def spread(cls, prompt_V: Sequence[tuple[int, ...]], sampling: Sampling, seeds_G: Sequence[int], first: int = 0) -> tuple[Request, ...]:
        """A request for each seed: sample i, counted from ``first``, asks view i modulo the number of views."""
        view_G = [number % len(prompt_V) for number in range(first, first + len(seeds_G))]
        return tuple(
            cls(prompt_T=prompt_V[view], sampling=sampling, seed=seed, view=view) for view, seed in zip(view_G, seeds_G, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled response.

    ``logprob_T``: log-probability of each sampled token under the sampler at the sampling temperature
    (before top-p; a greedy response is scored at temperature 1), same length as ``token_T``; the end-of-turn token is included
    when it was sampled. ``top_T``: the likeliest tokens at each position, scored alike, where the sampling asked for them.
    ``reasoning_step_T``: the number of the reasoning step that each token is in, from 0, where the sampling asked for it. ``begun``: how
    many of the first tokens were sampled for another response, which this one shares them with. ``view``: the number of the view that it
    answers, as the request has it.
    """

    seed: int
    version: int
    token_T: tuple[int, ...]
    logprob_T: tuple[float, ...]
    finish: FinishReason
    text: str
    top_T: tuple[TopTokens, ...] = ()
    reasoning_step_T: tuple[int, ...] = ()
    begun: int = 0
    view: int = 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """The responses to one problem, in the order of their seeds. ``prompt_V``: the prompt of each view; none: all answer ``prompt_T``."""

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]
    prompt_V: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def begin(cls, prompt_V: tuple[tuple[int, ...], ...]) -> Group:
        """A group without responses yet, to a problem with these prompts of its views."""
        return cls(prompt_T=prompt_V[0], rollout_G=(), prompt_V=prompt_V if len(prompt_V) > 1 else ())

    def prompt_of(self, rollout: Rollout) -> tuple[int, ...]:
        """The prompt that a response answers."""
        return self.prompt_V[rollout.view] if self.prompt_V else self.prompt_T

    @property
    def n_tokens(self) -> int:
        """Response tokens that were sampled for the whole group: those that several responses share count once."""
        return sum(len(r.token_T) - r.begun for r in self.rollout_G)
