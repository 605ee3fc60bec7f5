"""Answers from adapters that another run has kept: nothing is trained (marc's prediction from stored adapters, arXiv 2411.07279)."""

from __future__ import annotations

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Outcome, Problem


class Stored:
    """The adapter that was kept for the problem."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """What the adapter holds. It takes no step."""
        return self.tools.weights(problem, 1)

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Load the adapter. A problem without one is answered by the base."""
        folder = self.tools.stored(problem)
        if folder is None:
            return Outcome(stop="no_adapter")
        await policy.load(folder)
        return Outcome(stop="stored")
