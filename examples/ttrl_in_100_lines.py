"""TTRL (arXiv 2504.16084) on three arithmetic questions: one page of code that uses sttrl's engine, on CPU.

In each epoch one policy sees every question: sample, vote, reward the samples with the elected answer, take a policy-gradient step.
If the vote is wrong, the policy learns the wrong answer. The labels are read at the end, to compute the accuracy.
`sttrl.methods.ttrl` is the complete method.

    .venv/bin/python examples/ttrl_in_100_lines.py [--epochs 4] [--votes 32] [--tokens 16]
"""

import argparse
import asyncio
from collections.abc import Sequence

from sttrl.data import SourceSpec, questions, read_table
from sttrl.engine.base import AdapterShape, EngineSettings, Policy
from sttrl.engine.lanes import RayEngine
from sttrl.engine.models import load_tokenizer, model_folder, stop_token_ids
from sttrl.ledger.seeds import seed_of
from sttrl.objectives.advantages import Evidence, advantages
from sttrl.questions import build_problems
from sttrl.questions.answers import Judge
from sttrl.questions.labels import labels
from sttrl.questions.prompts import AskedQuestion
from sttrl.types import Ballots, DeltaSpec, Objective, Request, Rollout, Row, Sampling, TrainGroup
from sttrl.voting import VoteConfig, majority

MODEL = "builtin/SmolLM2-135M-Instruct"
DATA = "arithmetic-demo"
QUESTIONS = ("5-plus-8", "3-plus-4", "2-times-4")


def settings(votes: int, tokens: int, folder: str, stop_ids: tuple[int, ...]) -> EngineSettings:
    """A small engine: one learner, a LoRA adapter of rank 16."""
    return EngineSettings(
        model_folder=folder, stop_token_ids=stop_ids, device="cpu", dtype="bfloat16", trust_remote_code=False,
        adapter=AdapterShape(rank=16, alpha=32), learner_ranks=1, micro_batch_tokens=512, trains=True, separate_reference=False,
        max_model_len=64 + tokens, max_num_seqs=votes, kv_cache_mib=128, gpu_memory_utilization=0.4, max_forks=1,
    )  # fmt: skip


class Ttrl:
    """A policy, a judge, and how to sample."""

    def __init__(self, policy: Policy, judge: Judge, votes: int, tokens: int) -> None:
        self.policy, self.judge, self.votes = policy, judge, votes
        self.sampling = Sampling(temperature=0.8, max_tokens=tokens)

    async def ask(self, problem: AskedQuestion, purpose: str, step: int = 0) -> tuple[tuple[Rollout, ...], Ballots]:
        """Samples of the policy, and their answers in classes of equal answers."""
        seeds_G = [seed_of(0, problem.id, purpose, step, sample) for sample in range(self.votes)]
        rollouts = await self.policy.sample(Request.each(problem.prompt_T, self.sampling, seeds_G))
        return rollouts, await self.judge.ballots(problem.kind, [(r.text, r.finish) for r in rollouts])

    async def learn(self, problem: AskedQuestion, epoch: int) -> None:
        """Vote, reward the samples, and take one GRPO step, unless there is nothing to learn."""
        rollouts, ballots = await self.ask(problem, "vote", epoch)
        election = majority(ballots, VoteConfig())
        print(f"epoch {epoch + 1}  {problem.id:10} elected {election.answer}, majority ratio {election.majority_ratio:.2f}", flush=True)
        if not election.abstains and not election.unanimous:
            lengths_G = tuple(len(rollout.token_T) for rollout in rollouts)
            (found,) = advantages([Evidence(reward_G=election.in_winner_G, length_G=lengths_G)], "grpo")
            row_G = tuple(Row.of(r, a) for r, a in zip(rollouts, found.advantage_GT, strict=True))
            await self.policy.update([TrainGroup(prefix_T=problem.prompt_T, row_G=row_G)], Objective(temperature=0.8))

    async def accuracy(self, problems: Sequence[AskedQuestion], ballots_P: Sequence[Ballots]) -> float:
        """The fraction of samples whose answer equals the label."""
        right = labels(read_table(SourceSpec(dataset=DATA)))
        answers = [(p, a.text) for p, ballots in zip(problems, ballots_P, strict=True) for a in ballots.answer_G]
        verdicts = [text is not None and bool(await self.judge.equal(p.kind, text, right[p.id])) for p, text in answers]
        return sum(verdicts) / len(verdicts)


async def run(epochs: int, votes: int, tokens: int) -> None:
    """Start the engine, ask, learn for ``epochs``, ask again."""
    folder = model_folder(MODEL)
    tokenizer = load_tokenizer(folder)
    chosen = questions(read_table(SourceSpec(dataset=DATA)), QUESTIONS)
    problems, _ = build_problems(chosen, tokenizer, instruction=None, prompt_format=None, max_prompt_tokens=64)
    engine = RayEngine(settings(votes, tokens, str(folder), stop_token_ids(folder, tokenizer)), tokenizer)
    try:
        await engine.start()
        async with Judge() as judge, engine.fork("ttrl", DeltaSpec(kind="lora", lr={"main": 1e-3}, weight_decay=0.01)) as policy:
            ttrl = Ttrl(policy, judge, votes, tokens)
            before_P = [(await ttrl.ask(problem, "evaluate"))[1] for problem in problems]
            for epoch in range(epochs):
                for problem in problems:
                    await ttrl.learn(problem, epoch)
            after_P = [(await ttrl.ask(problem, "evaluate"))[1] for problem in problems]
            print(f"accuracy before {await ttrl.accuracy(problems, before_P):.2f}")
            print(f"accuracy after  {await ttrl.accuracy(problems, after_P):.2f}")
    finally:
        await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TTRL on three arithmetic questions.")
    for flag, value in (("--epochs", 4), ("--votes", 32), ("--tokens", 16)):
        parser.add_argument(flag, type=int, default=value)
    asyncio.run(run(**vars(parser.parse_args())))
