"""SLOT (arXiv 2505.12392; maple-research-lab/SLOT): a vector on the last hidden state, tuned on the prompt alone.

delta, zero at the start, is added to the last hidden state at every position. ``steps`` AdamW steps minimise the prompt's
mean next-token cross-entropy in delta; it stays while the answer is decoded. Nothing is sampled to adapt.
"""

from __future__ import annotations

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Objective, Outcome, Problem, Row, Step, TrainGroup

ADAM_EPS = 1e-5
"""The original's."""


class Slot:
    """Gradient steps on the prompt, in one vector."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A vector; LoRA and full weights have no part in it."""
        config = self.config
        return DeltaSpec(
            kind="vector",
            lr={"main": config.learning_rate},
            total_steps=max(1, config.method_steps * questions),
            warmup_ratio=config.update.warmup_ratio,
            schedule=config.update.lr_schedule,
            weight_decay=config.decay,
            adam_eps=ADAM_EPS,
        )

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Tune the vector on the prompt."""
        first, *rest = problem.prompt_T
        if not rest:
            return Outcome(stop="steps")  # nothing follows the only token
        prompt = TrainGroup(prefix_T=(first,), row_G=(Row(token_T=tuple(rest), weight_T=(1.0,) * len(rest)),))
        for index in range(self.config.method_steps):
            version = policy.version
            update = await policy.update([prompt], Objective(loss="nll"))
            self.tools.observe(problem, Step(index=index, version=version, vote=None, update=update))
        return Outcome(stop="steps")
