"""What a method is given and what it must be: `adapt(problem, policy)`, a page at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from sttrl.config import RunConfig
from sttrl.engine.base import Policy
from sttrl.types import Ballots, DeltaSpec, Election, Group, Objective, Outcome, Problem, Sampling, Step
from sttrl.voting import VOTES, VoteConfig

SeedSource = Callable[[Problem, str, int, int], tuple[int, ...]]
"""(problem, purpose, step, n) -> n seeds, the same in every run with the same run seed."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Everything around a policy that a method may use.

    ``ballots`` extracts and judges a group's answers; ``observe`` is told of every finished step.
    """

    config: RunConfig
    ballots: Callable[[Problem, Group], Awaitable[Ballots]]
    seeds: SeedSource
    observe: Callable[[Problem, Step], None]

    @property
    def sampling(self) -> Sampling:
        """How the samples that vote are taken."""
        return Sampling(temperature=self.config.temp, top_p=self.config.top_p, max_tokens=self.config.max_response_tokens)

    @property
    def objective(self) -> Objective:
        """What an update minimises."""
        return Objective(kl_coef=self.config.kl_coef, max_logprob_gap=self.config.max_logprob_gap)

    def vote(self, ballots: Ballots) -> Election:
        """The run's voting function."""
        return VOTES[self.config.voting_function](ballots, VoteConfig(ties=self.config.ties))

    def majority(self, ballots: Ballots) -> Election:
        """The majority vote, logged beside every other."""
        return VOTES["majority"](ballots, VoteConfig(ties=self.config.ties))


class Method(Protocol):
    """One way to adapt a policy to a question."""

    def __init__(self, tools: Tools) -> None: ...

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """What a fork for this question may change; ``None``: the one fork of a continuous run over so many questions."""
        ...

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Change the policy for the question. Knows nothing of Ray, verl, vLLM, files or labels."""
        ...
