"""STTRL: test-time reinforcement learning on one question (derived from TTRL, arXiv 2504.16084).

Each step samples ``n_votes`` responses, elects an answer, rewards the samples that agree with it, and takes one GRPO
step on the first ``n_train`` of them, with a KL term to the base. It stops when there is nothing left to learn.
"""

from __future__ import annotations

from sttrl.engine.base import Policy
from sttrl.methods.base import Tools
from sttrl.objectives.advantages import group_advantages
from sttrl.types import Ballots, DeltaSpec, Election, Group, Outcome, Problem, Step, StopReason, TrainBatch, UpdateStats


class Sttrl:
    """One policy-gradient step per vote, on the vote's own samples."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights, with the run's optimiser settings and a seed of its own."""
        config = self.config
        seed = self.tools.seeds(problem, "lora", 0, 1)[0] if problem is not None else config.seed
        return DeltaSpec(
            kind="lora" if config.lora_rank else "full",
            lr=config.learning_rate,
            total_steps=max(1, config.steps * questions),
            warmup_ratio=config.warmup_ratio,
            schedule=config.lr_schedule,
            weight_decay=config.weight_decay,
            seed=seed,
        )

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Sample, vote, reward, update; at most ``steps`` times."""
        tools, config = self.tools, self.config
        for index in range(config.steps):
            version = policy.version
            group = await policy.sample(problem.prompt_T, tools.sampling, tools.seeds(problem, "vote", index, config.n_votes))
            ballots = await tools.ballots(problem, group)
            election = tools.vote(ballots)
            stop = self.nothing_to_learn(ballots, election)
            batch = None if stop else self.batch(group, election)
            update = await policy.update(batch, tools.objective) if batch else None
            tools.observe(
                problem,
                Step(
                    index=index,
                    version=version,
                    group=group,
                    ballots=ballots,
                    election=election,
                    majority=tools.majority(ballots),
                    reward_G=election.agreement_G,
                    update=update,
                ),
            )
            stop = stop or self.budget_spent(update)
            if stop:
                return Outcome(stop=stop)
        return Outcome(stop="steps")

    def nothing_to_learn(self, ballots: Ballots, election: Election) -> StopReason | None:
        """Why this vote leaves nothing to learn: nothing parsable, a tie, or (near) unanimity."""
        if election.voters == 0:
            return "unparsable"
        if election.abstains:
            return "tie"
        if election.unanimous:
            return "unanimous"
        return "agreement" if election.majority_ratio >= self.config.stop_agreement else None

    def budget_spent(self, update: UpdateStats | None) -> StopReason | None:
        """Whether the policy is as far from the base as it may go."""
        budget = self.config.kl_budget
        spent = budget is not None and update is not None and update.kl_to_base is not None and update.kl_to_base > budget
        return "kl_budget" if spent else None

    def batch(self, group: Group, election: Election) -> TrainBatch | None:
        """The first ``n_train`` samples with the advantage of agreeing with the elected answer; None where all fare the same."""
        count = self.config.n_train
        reward_G = election.agreement_G[:count]
        if len(set(reward_G)) == 1:
            return None
        return TrainBatch(
            prompt_T=group.prompt_T,
            rollout_G=group.rollout_G[:count],
            advantage_G=group_advantages(reward_G),
            temperature=self.config.temp,
        )
