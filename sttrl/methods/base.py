"""What a method must be: `adapt(problem, policy)`, a page at most; or, for one policy on all questions, a plan of steps."""

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
        """What a fork for this question may change; ``None``: the one fork of a continuous run over so many questions."""
        ...

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Change the policy for the question. Knows nothing of Ray, verl, vLLM, files or labels."""
        ...


@runtime_checkable
class DatasetMethod(Protocol):
    """One way to adapt one policy to all questions, in batches of them."""

    def __init__(self, tools: Tools) -> None: ...

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """What the one fork may change, over so many questions."""
        ...

    def plan(self, problems: Sequence[Problem]) -> Sequence[Sequence[Problem]]:
        """The questions of every step, in order; the same for the same questions and seed."""
        ...

    async def step(self, index: int, problems: Sequence[Problem], policy: Policy) -> None:
        """Sample for each question of a batch, vote, and take one update on all of them."""
        ...
