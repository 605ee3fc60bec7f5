"""SLOT (arXiv 2505.12392; maple-research-lab/SLOT): a vector on the last hidden state, tuned on the prompt alone.

The vector delta starts at zero and is added to the last hidden state at every position. ``steps`` AdamW steps on delta minimise the
prompt's mean next-token cross-entropy. delta is also added while the answer is decoded. Adapting samples nothing.
"""

from __future__ import annotations

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Objective, Outcome, Problem, Row, Step, TrainGroup

ADAM_EPS = 1e-5
"""The value in SLOT's code."""


class Slot:
    """Gradient steps on one vector, with the prompt as training data."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A vector; the settings of LoRA do not matter."""
        config = self.config
        return DeltaSpec(
            kind="vector",
            lr={"main": config.learning_rate},
            total_steps=max(1, config.method_steps * questions),
            **config.optimiser,
            adam_eps=ADAM_EPS,
        )

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Tune the vector on the prompt."""
        first, *rest = problem.prompt_T
        if not rest:
            return Outcome(stop="steps")  # no token to predict
        prompt = TrainGroup(prefix_T=(first,), row_G=(Row(token_T=tuple(rest), weight_T=(1.0,) * len(rest)),))
        for index in range(self.config.method_steps):
            if self.tools.out_of_time(problem):
                return Outcome(stop="time")
            version = policy.version
            update = await policy.update([prompt], Objective(loss="nll"))
            self.tools.observe(problem, Step(index=index, version=version, vote=None, update=update))
        return Outcome(stop="steps")
