"""The two protocols of methods: one adapts a policy to each question, the other trains one policy on all questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Outcome, Problem


class Method(Protocol):
    """One way to adapt a policy to a question."""

    def __init__(self, tools: Tools) -> None: ...

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """What a fork for this question may change. ``None``: what the single fork of a continuous run over ``questions`` may change."""
        ...

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Adapt the policy to the question. A method knows nothing of Ray, verl, vLLM, files or labels."""
        ...


@runtime_checkable
class DatasetMethod(Protocol):
    """One way to adapt one policy to all questions, in batches of them."""

    def __init__(self, tools: Tools) -> None: ...

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """What the single fork may change, in a run over ``questions`` questions. ``plan`` has been called before."""
        ...

    def plan(self, problems: Sequence[Problem]) -> Sequence[Sequence[Problem]]:
        """The questions of each step, in order. The same questions and the same seed give the same plan."""
        ...

    async def step(self, index: int, problems: Sequence[Problem], policy: Policy) -> None:
        """Sample for each question of a batch, vote, and take one update on all of them."""
        ...
