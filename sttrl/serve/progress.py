"""What is known of a request while its policy adapts: enough to answer at any moment, and to say how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sttrl.engine.base import Samples
from sttrl.ledger.files import json_line, write_text
from sttrl.ledger.records import ElectionRecord, StepRecord
from sttrl.questions.kind import Questions
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import Poll
from sttrl.serve.orders import Order
from sttrl.types import Ballots, Group, Request, Rollout

RESERVE: float = 1.5
"""A further step begins only if at least this many times the seconds of the last step are left until the deadline (derived)."""


@dataclass
class Progress:
    """The state of a request that adapts. ``told``: called with each line for the client.

    ``base``: the base's greedy response; ``base_text`` and ``base_answer``: its text and its answer. ``first``: the vote of the base;
    ``best``: a response with the answer that was elected last. ``rollouts``: the adapted policy's responses to the client. ``limit``: what
    ended adapting early.
    """

    order: Order
    began: float
    told: Callable[[str], None] = lambda line: None
    base: Rollout | None = None
    base_text: str | None = None
    base_answer: str | None = None
    first: ElectionRecord | None = None
    elected: ElectionRecord | None = None
    best: Rollout | None = None
    rollouts: tuple[Rollout, ...] = ()
    steps: int = 0
    sampled: int = 0
    trained: int = 0
    evaluated: int = 0
    limit: Literal["budget_tokens", "deadline_s"] | None = None
    last_group: tuple[Group, Ballots] | None = field(default=None, repr=False)
    last_cost: int = 0
    last_seconds: float = 0.0
    step_began: float = 0.0

    @property
    def spent(self) -> int:
        """Response tokens that adapting sampled and trained on."""
        return self.sampled + self.trained

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.began + self.order.deadline_s - time.monotonic()

    def begin_again(self) -> None:
        """The question begins, perhaps not for the first time: if its lane has died, what was known of it no longer holds."""
        vars(self).update(vars(Progress(self.order, self.began, self.told)))
        self.step_began = time.monotonic()

    def step(self, record: StepRecord) -> None:
        """A step is finished."""
        self.steps, now = self.steps + 1, time.monotonic()
        self.sampled += record.tokens_sampled
        self.trained += record.tokens_trained
        self.last_cost = record.tokens_sampled + record.tokens_trained
        self.last_seconds, self.step_began = now - self.step_began, now
        if record.election is not None:
            self.first = self.first or record.election
            if record.election.winner is not None and self.last_group is not None:
                self.elected = record.election
                self.best = _representative(*self.last_group, record.election.winner)
        self.told(self._line(record))

    def out_of_budget(self) -> bool:
        """Whether another step, as large as the last one, would pass the budget or the deadline."""
        if self.spent + self.last_cost > self.order.budget_tokens:
            self.limit = "budget_tokens"
        elif self.steps and self.seconds_left < RESERVE * self.last_seconds:
            self.limit = "deadline_s"
        self.step_began = time.monotonic()
        return self.limit is not None

    def _line(self, record: StepRecord) -> str:
        left = f"{max(0, self.order.budget_tokens - self.spent)} tokens and {max(0.0, self.seconds_left):.0f} s left"
        if record.election is None:
            return f"step {self.steps}: {left}"
        if record.election.answer is None:
            return f"step {self.steps}: no answer is elected; {left}"
        return f"step {self.steps}: {record.election.majority_ratio:.0%} of {record.election.samples} say {record.election.answer}; {left}"


class Replying:
    """A policy that answers the client in the batch in which it is evaluated: two batches would take the sampler twice as long.

    ``requests``: the client's. ``replies``: the responses to them.
    """

    def __init__(self, policy: Samples, requests: tuple[Request, ...]) -> None:
        self.policy, self.requests = policy, requests
        self.replies: tuple[Rollout, ...] = ()

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """See `Policy.sample`."""
        found = await self.policy.sample((*self.requests, *requests))
        self.replies = found[: len(self.requests)]
        return found[len(self.requests) :]


class Answering(Questions):
    """Text questions whose adapted policy also answers the client; see `sttrl.questions.kind.Questions`.

    What it answered is written beside the journal before the question counts as finished, so that the same request gets the same answer
    after a restart.
    """

    def __init__(self, of: Questions, progress: Progress, keep: Any) -> None:
        super().__init__(of.config, of.judge, of.seeds, of.clock)
        self.progress, self.keep = progress, keep

    async def evaluate(self, stage: Literal["base", "adapted"], problem: AskedQuestion, policy: Samples) -> Poll:
        """The poll. After adapting, the answers to the client too."""
        if stage == "base":
            self.progress.begin_again()
            poll = await super().evaluate(stage, problem, policy)
            assert poll.greedy is not None
            self.progress.base, self.progress.base_text = poll.greedy, poll.greedy.text
            self.progress.base_answer = poll.ballots.answer_G[-1].text
        else:
            order = self.progress.order
            replying = Replying(policy, Request.each(problem.prompt_T, order.sampling, self.seeds(problem, "reply", 0, order.n)))
            poll = await super().evaluate(stage, problem, replying)
            self.progress.rollouts = replying.replies
            write_text(self.keep, "".join(map(json_line, map(_plain, self.progress.rollouts))))
        self.progress.evaluated += sum(len(r.token_T) for r in poll.rollout_G)
        return poll

    async def ballots(self, problem: AskedQuestion, group: Group) -> Ballots:
        """The judged answers of a group, which is remembered."""
        found = await super().ballots(problem, group)
        self.progress.last_group = (group, found)
        return found

    def out_of_time(self, problem: AskedQuestion | None) -> bool:
        """Whether the budget or the deadline allows no further step."""
        return self.progress.out_of_budget()


def kept_rollouts(lines: Iterator[dict[str, Any]]) -> tuple[Rollout, ...]:
    """The responses that were written beside the journal."""
    flat = ("token_T", "logprob_T", "reasoning_step_T")
    return tuple(Rollout(**line | {name: tuple(line.get(name, ())) for name in flat} | {"top_T": _pairs(line["top_T"])}) for line in lines)


def _pairs(top_T: list[list[list[Any]]]) -> tuple[tuple[tuple[int, float], ...], ...]:
    return tuple(tuple((int(token), float(logprob)) for token, logprob in at) for at in top_T)


def _plain(rollout: Rollout) -> dict[str, Any]:
    return dict(vars(rollout))


def _representative(group: Group, ballots: Ballots, winner: int) -> Rollout:
    """The likeliest response, per token, of those with the elected answer."""
    voters = [r for r, place in zip(group.rollout_G, ballots.class_G, strict=False) if place == winner]
    return max(voters, key=lambda r: sum(r.logprob_T) / max(1, len(r.logprob_T)))
