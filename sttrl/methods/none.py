"""No adaptation: the base model answers. Every other method is compared with it."""

from __future__ import annotations

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Outcome, Problem


class NoAdaptation:
    """The base policy, unchanged."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """Nothing may change."""
        return DeltaSpec(kind="none")

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Leave the policy as it is."""
        return Outcome(stop="no_adaptation")
