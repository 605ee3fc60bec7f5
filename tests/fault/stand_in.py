"""A stand-in engine: deterministic, instant, and able to fail where a test says so. It drives the real runner, journal, judge and report.

A policy is a distribution over a handful of small numbers, different for every prompt; an update moves it toward what had a
positive advantage. `Faults` counts the calls of each kind and runs what was planned for the n-th.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sttrl.config import RunConfig
from sttrl.data import SourceSpec, questions, read_table
from sttrl.engine.base import JUST_LOGPROBS, Policy
from sttrl.ledger.folder import attempts, claim
from sttrl.ledger.journal import Journal, read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.kind import Questions
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import poll_from_json
from sttrl.report import results_lines
from sttrl.run.runner import Runner
from sttrl.run.seats import Seats
from sttrl.types import (
    AnswerKind,
    Ballots,
    DeltaSpec,
    FinishReason,
    Measure,
    Objective,
    Problem,
    Request,
    Rollout,
    Row,
    TokenStats,
    TrainGroup,
    UpdateStats,
)  # fmt: skip

CHOICES = 5
Planned = BaseException | Callable[[], None]
Texts = Callable[[Sequence[int], int, int], tuple[str, FinishReason]]
"""(prompt, seed, answer) -> the text of a response and how it ended."""


def digest(*parts: object) -> int:
    """A stable 63-bit hash."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def share(*parts: object) -> float:
    """A stable number in [0, 1)."""
    return digest(*parts) / 2**63


def usual_text(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """Mostly an answer; now and then a text without one, or one that is cut at the token limit."""
    kind = digest("text", seed, answer) % 16
    if kind == 0:
        return "I would rather not say.", "stop"
    return f"Let me see. The answer is {answer}.", "length" if kind == 1 else "stop"


@dataclass
class Faults:
    """What goes wrong: ``plan[kind, n]`` happens at the n-th call of that kind, counted from 1."""

    plan: dict[tuple[str, int], Planned] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def at(self, kind: str) -> None:
        """One call."""
        self.calls[kind] += 1
        planned = self.plan.get((kind, self.calls[kind]))
        if isinstance(planned, BaseException):
            raise planned
        if planned is not None:
            planned()


class StandInPolicy:
    """`sttrl.engine.base.Policy` over `CHOICES` answers: ``delta_C`` is added to the base's logits, which every prompt has its own of."""

    def __init__(self, engine: StandIn, spec: DeltaSpec) -> None:
        self.engine, self.spec, self.version = engine, spec, 0
        self.delta_C = [0.0] * CHOICES

    def probabilities(self, prompt_T: Sequence[int], temperature: float = 1.0, base: bool = False) -> list[float]:
        """Of each answer."""
        shift = [0.0] * CHOICES if base else self.delta_C
        logit = [(2.0 * share("base", tuple(prompt_T), answer) + shift[answer]) / temperature for answer in range(CHOICES)]
        top = max(logit)
        total = math.fsum(math.exp(x - top) for x in logit)
        return [math.exp(x - top) / total for x in logit]

    def answer_of(self, token: int) -> int:
        """The answer that the first token of a response stands for."""
        return token % CHOICES

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """One response to each request."""
        await self.engine.pause("sample")
        self.engine.faults.at("sample")
        return tuple(self._rollout(request) for request in requests)

    async def score(
        self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[TokenStats, ...], ...]:
        """Every statistic is the log-probability of the answer, spread over the tokens, or its opposite."""
        self.engine.faults.at("score")
        signs = {"logprob": 1.0, "entropy": -1.0, "top_confidence": -1.0, "self_certainty": -1.0, "sum_pi_squared": -0.1}

        def stats(group: TrainGroup, row: Row) -> TokenStats:
            p = self.probabilities(group.prefix_T, measure.temperature, base=at == "base")
            mean, count = math.log(p[self.answer_of(row.token_T[0])]) / len(row.token_T), len(row.token_T)
            return TokenStats(**{f"{stat}_T": (signs.get(stat, 1.0) * mean,) * count for stat in measure.want})

        return tuple(tuple(stats(group, row) for row in group.row_G) for group in groups)

    async def values(self, groups: Sequence[TrainGroup]) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """A critic that expects a half."""
        return tuple(tuple((0.5,) * len(row.token_T) for row in group.row_G) for group in groups)

    async def update(self, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """Add the advantages to the logits of the answers that earned them; without advantages, every row is good."""
        assert self.spec.kind != "none", "a fork without a delta cannot be updated"
        await self.engine.pause("update")
        self.engine.faults.at("update")
        loss = 0.0
        for group in groups:
            for row in group.row_G:
                advantage = row.advantage_T[0] if row.advantage_T else 1.0
                self.delta_C[self.answer_of(row.token_T[0])] += 0.5 * advantage / len(group.row_G)
                loss -= advantage
        self.version += 1
        prompt_T = groups[0].prefix_T
        p, q = self.probabilities(prompt_T), self.probabilities(prompt_T, base=True)
        kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return UpdateStats(
            loss=loss, grad_norm=1.0, lr=self.spec.lr["main"], kl_to_base=kl, logprob_gap_mean=0.0, logprob_gap_max=0.0,
            logprob_correlation=1.0, tokens=sum(group.n_tokens for group in groups), micro_batches=1, seconds=0.0,
        )  # fmt: skip

    async def save(self, folder: Path) -> None:
        """Write the delta."""
        self.engine.faults.at("save")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "delta.json").write_text(json.dumps(self.delta_C))

    async def checkpoint(self, folder: Path) -> None:
        """Write the delta and the version."""
        self.engine.faults.at("checkpoint")
        await self.save(folder)
        (folder / "version").write_text(str(self.version))

    async def restore(self, folder: Path) -> None:
        """Read what `checkpoint` wrote."""
        self.engine.faults.at("restore")
        self.delta_C = json.loads((folder / "delta.json").read_text())
        self.version = int((folder / "version").read_text())

    async def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.engine.faults.at("load")
        self.delta_C = json.loads((folder / "delta.json").read_text())
        self.version += 1

    def _rollout(self, request: Request) -> Rollout:
        prompt_T, sampling, seed = request.prompt_T, request.sampling, request.seed
        p = self.probabilities(prompt_T, sampling.temperature or 1.0)
        answer = p.index(max(p)) if sampling.temperature == 0 else drawn(p, share("draw", seed))
        text, finish = self.engine.texts(prompt_T, seed, answer)
        noise = digest("tokens", seed, answer)
        length = min(3 + noise % 10, sampling.max_tokens)
        token_T = (answer, *((noise >> 5 * position) % 1000 for position in range(length - 1)))
        begun = len(request.begun_T)
        return Rollout(
            seed=seed, version=self.version, token_T=token_T, logprob_T=(math.log(p[answer]) / length,) * length, finish=finish, text=text,
            view=request.view,
            reasoning_step_T=tuple(position // 4 for position in range(begun, begun + length)) if sampling.reasoning_steps else (),
        )  # fmt: skip


class StandIn:
    """`sttrl.engine.base.Engine`, with the three further methods that `sttrl.run.workshop` uses of RayEngine."""

    def __init__(self, faults: Faults | None = None, texts: Texts = usual_text) -> None:
        self.faults, self.texts = faults or Faults(), texts
        self.open: set[str] = set()

    async def pause(self, kind: str) -> None:
        """A call of this kind takes its time."""
        await asyncio.sleep(0)

    def policy(self, delta: DeltaSpec) -> Policy:
        """A new policy."""
        return StandInPolicy(self, delta)

    @asynccontextmanager
    async def fork(self, name: str, delta: DeltaSpec) -> AsyncIterator[Policy]:
        """A policy equal to the base."""
        self.faults.at("fork")
        assert name not in self.open, f"{name} is open already"
        self.open.add(name)
        try:
            yield self.policy(delta)
        finally:
            self.open.discard(name)

    async def start(self) -> None:
        """Nothing to start."""
        self.faults.at("start")

    async def close(self) -> None:
        """Every fork must have been left."""
        assert not self.open, f"forks left open: {self.open}"

    @property
    def forks(self) -> frozenset[str]:
        """Those that are open."""
        return frozenset(self.open)


class InlineJudge(Judge):
    """The real judge, without a thread of its own: what it is asked here takes no time."""

    async def ballots(
        self, kind: AnswerKind, texts_and_finishes: Sequence[tuple[str, FinishReason]], option_count: int | None = None
    ) -> Ballots:
        """See `Judge.ballots`."""
        return self.ballots_sync(kind, texts_and_finishes)


class ByteTokenizer:
    """A tokenizer without a chat template: bytes."""

    chat_template = None
    eos_token_id = 0
    added_tokens_decoder: dict[int, Any] = {}

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())


def drawn(p: Sequence[float], u: float) -> int:
    """The answer that ``u`` falls on."""
    for answer, each in enumerate(p):
        u -= each
        if u < 0:
            return answer
    return len(p) - 1


def config_for(folder: Path, **changes: Any) -> RunConfig:
    """Settings of a small run in ``folder``."""
    settings: dict[str, Any] = {
        "steps": 3, "n_votes": 12, "n_train": 8, "val_samples": 4, "max_response_tokens": 64, "limit": 4,
        "output_dir": folder.parent, "run_name": folder.name,
    }  # fmt: skip
    return RunConfig.of(**{**settings, **changes})


def problems_for(config: RunConfig) -> list[Problem]:
    """The problems of a run, as the launcher would make them."""
    table = read_table(SourceSpec(dataset=config.data.dataset, data_dir=config.data.data_dir))
    chosen = questions(table, config.data.ids or None, config.data.limit)
    return [AskedQuestion(id=q.id, index=q.index, kind=q.kind, prompt_T=tuple(q.text.encode())) for q in chosen]


def attempt(
    config: RunConfig,
    engine: StandIn | Sequence[StandIn],
    judge: Judge,
    problems: Sequence[Problem] | None = None,
    said: list[str] | None = None,
) -> None:
    """One attempt at a run, as `sttrl.run.attempt` makes it, without model, labels and report. ``said`` collects its progress."""
    folder = config.run.output_dir / str(config.run.run_name)
    problems = problems_for(config) if problems is None else problems
    with Journal(folder) as journal:
        claim(folder, config)
        finished = {f.record.id for f in read_finished(folder, poll_from_json)}
        left = [problem for problem in problems if problem.id not in finished]
        number = attempts(folder)[0] + 1
        runner = Runner(
            config, kind=partial(Questions, config, judge), journal=journal,
            seats=Seats([engine] if isinstance(engine, StandIn) else engine, config.in_flight),
            folder=folder, attempt=number,
            progress=[].append if said is None else said.append, track=lambda record: None,
        )  # fmt: skip
        if left:
            asyncio.run(_silently(runner.run(left, len(finished))))


async def _silently(run: Coroutine[Any, Any, None]) -> None:
    """Run, without a log line about tasks that a planned KeyboardInterrupt ended.

    asyncio logs them with a traceback when they are collected, and Python 3.11 parses code for a traceback. Where the collector interrupts
    other code that parses, both fail: "AST constructor recursion depth mismatch".
    """
    loop = asyncio.get_running_loop()
    said = loop.default_exception_handler
    loop.set_exception_handler(lambda loop, context: None if isinstance(context.get("exception"), KeyboardInterrupt) else said(context))
    await run


def results(folder: Path) -> str:
    """results.jsonl as the report would write it now."""
    return results_lines(read_finished(folder, poll_from_json))


def rollouts(folder: Path) -> dict[str, bytes]:
    """The rollout files by name, without what a killed writer left beside them."""
    return {path.name: path.read_bytes() for path in sorted((folder / "rollouts").glob("[!.]*"))}
