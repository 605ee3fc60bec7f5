"""TTT: test-time training on rows that a problem brings, such as the demonstrations of a puzzle (arXiv 2411.07279).

The rows are supervised: some of their tokens carry loss. Each step is one AdamW step on the mean negative log-likelihood of ``ttt_batch``
rows. Per problem (marc, and Product of Experts, arXiv 2505.07859), or with ``--scope dataset`` one adapter for all problems (the
ARChitects, 2024). No answer is sampled while adapting.
"""

from __future__ import annotations

from collections.abc import Sequence

from sttrl.engine.base import Policy
from sttrl.methods.base import DatasetMethod, Method
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Objective, Outcome, Problem, Step, whole_rows


def ttt(tools: Tools) -> Method | DatasetMethod:
    """The method with the scope that the run asks for."""
    return TttOfAll(tools) if tools.config.ttt.scope == "dataset" else Ttt(tools)


class Ttt:
    """Supervised steps on the rows of one problem."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights; the schedule ends with the last row."""
        rows = self.config.ttt.ttt_rows if problem is None else len(self.tools.rows(problem))
        return self.tools.weights(problem, self.steps(rows) * questions)

    def steps(self, rows: int) -> int:
        """How many steps a number of rows makes."""
        return min(self.config.method_steps, self.config.ttt.ttt_epochs * -(-rows // self.config.ttt.ttt_batch))

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Train on the rows, in their order, epoch after epoch."""
        rows, size = self.tools.rows(problem), self.config.ttt.ttt_batch
        if not rows:
            return Outcome(stop="no_rows")
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for index in range(self.steps(len(rows))):
            if self.tools.out_of_time(problem):
                return Outcome(stop="time")
            version, batch = policy.version, batches[index % len(batches)]
            update = await policy.update(whole_rows(batch), Objective(loss="nll"))
            self.tools.observe(problem, Step(index=index, version=version, vote=None, update=update))
        return Outcome(stop="steps")


class TttOfAll:
    """Supervised steps of one policy on the rows of all problems, in an order drawn anew for each epoch."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config
        self.planned: list[list[tuple[Problem, int]]] = []

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights, with a schedule over the planned steps."""
        return self.tools.weights(None, len(self.planned))

    def plan(self, problems: Sequence[Problem]) -> list[list[Problem]]:
        """The problem of each row of each step; a problem with several rows in a step appears several times."""
        self.planned = self.batches(problems)
        return [[problem for problem, _ in batch] for batch in self.planned]

    def batches(self, problems: Sequence[Problem]) -> list[list[tuple[Problem, int]]]:
        """The (problem, number of its row) of each step."""
        size, steps = self.config.ttt.ttt_batch, []
        for epoch in range(self.config.ttt.ttt_epochs):
            drawn = [
                (seed, problem, number)
                for problem in problems
                for number, seed in enumerate(self.tools.seeds(problem, "order", epoch, len(self.tools.rows(problem))))
            ]
            ordered = [(problem, number) for _, problem, number in sorted(drawn, key=lambda entry: entry[0])]
            steps += [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return steps[: self.config.method_steps]

    async def step(self, index: int, problems: Sequence[Problem], policy: Policy) -> None:
        """One step on the rows of a batch of `batches`, which ``plan`` has made."""
        version, batch = policy.version, self.planned[index]
        update = await policy.update(whole_rows([self.tools.rows(problem)[number] for problem, number in batch]), Objective(loss="nll"))
        for problem in dict.fromkeys(problems):
            self.tools.observe(problem, Step(index=index, version=version, vote=None, update=update))
