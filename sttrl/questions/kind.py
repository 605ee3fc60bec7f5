"""Text questions as a kind of problem. A policy is evaluated by a poll: several samples and a greedy response, which the judge compares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from sttrl.config import RunConfig
from sttrl.engine.base import Policy, Samples
from sttrl.ledger.records import QuestionRecord
from sttrl.ledger.rollouts import rollout_line
from sttrl.ledger.seeds import SeedSource
from sttrl.questions.answers import Judge
from sttrl.questions.polls import enough, within
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import Poll, PollRecord, poll_from_json, votes_of
from sttrl.questions.views import mapped_back
from sttrl.types import Ballots, Group, Request, Rollout, Row, Sampling
from sttrl.voting import VoteConfig, confidence_vote, majority
from sttrl.voting.rounds import replayed

MOST_AT_ONCE = 512
Clock = Callable[[str, str], AbstractContextManager[None]]


@asynccontextmanager
async def opened_questions(config: RunConfig, judge: Judge | None = None) -> AsyncIterator[Callable[[SeedSource, Clock], Questions]]:
    """Give a function that makes the kind for a runner. ``judge``: one that runs already; None: one is started, and ended afterwards."""
    if judge is not None:
        yield partial(Questions, config, judge)
        return
    async with Judge() as own:
        yield partial(Questions, config, own)


class Questions:
    """See `sttrl.run.kind.Kind`. ``clock`` counts the seconds that the judge takes for each question."""

    training: ClassVar[None] = None

    def __init__(
        self, config: RunConfig, judge: Judge, seeds: SeedSource, clock: Callable[[str, str], AbstractContextManager[None]]
    ) -> None:
        self.config, self.judge, self.seeds, self.clock = config, judge, seeds, clock

    @property
    def response_tokens(self) -> int:
        """As the settings say."""
        return self.config.sampling.max_response_tokens

    async def evaluate(self, stage: Literal["base", "adapted"], problem: AskedQuestion, policy: Samples) -> Poll:
        """``val_samples`` samples, spread over the views, and a greedy response to the plain question; the seeds are always the same."""
        sampling, count = self.config.sampling_of_evaluations, self.config.evaluation.val_samples
        asked = Request.spread(problem.prompts_of(0), sampling, self.seeds(problem, "evaluate", 0, count))
        greedily = replace(sampling, temperature=0.0, top_p=1.0)
        asked += Request.each(problem.prompt_T, greedily, self.seeds(problem, "greedy", 0, 1))
        *samples, greedy = await policy.sample(asked)
        return await self._held(problem, sampling, samples, greedy)

    async def baseline(self, problem: AskedQuestion, base: Policy, budget: int, reused: Sequence[Rollout]) -> Poll:
        """A vote of the base with ``budget`` response tokens: as many as the adaptation sampled and trained on.

        Sampling settings and seeds are those of the adaptation; ``reused`` are samples of the base that exist already. The vote is over
        as many samples as fit the budget, at least one. With ``votes_until`` the same samples also vote in rounds.
        """
        sampling, rollouts = self.config.sampling_of_votes, list(reused)
        while (spent := sum(len(r.token_T) for r in rollouts)) < budget:
            lengths = [len(r.token_T) for r in rollouts] or [sampling.max_tokens // 2]
            more = min(MOST_AT_ONCE, enough(budget - spent, lengths))
            seeds_G = self.seeds(problem, "vote", 0, len(rollouts) + more)[len(rollouts) :]
            rollouts += await base.sample(Request.spread(problem.prompts_of(0), sampling, seeds_G, len(rollouts)))
        poll = await self._held(problem, sampling, within(rollouts, budget))
        if (until := self.config.vote.votes_until) is None:
            return poll
        by_majority = partial(majority, config=VoteConfig.of(self.config))
        return replace(poll, early=replayed(poll.votes, by_majority, until, self.config.vote.votes_first))

    async def ballots(self, problem: AskedQuestion, group: Group) -> Ballots:
        """The answers of a group of responses, judged, each mapped back from the view that it answers."""
        with self.clock(problem.id, "judge"):
            texts_and_finishes = [(r.text, r.finish) for r in group.rollout_G]
            found = await self.judge.ballots(problem.kind, texts_and_finishes, problem.option_count)
        return mapped_back(found, problem.view_V, [r.view for r in group.rollout_G]) if problem.view_V else found

    def rows(self, problem: AskedQuestion) -> Sequence[Row]:
        """None: a question brings no training rows, and the method ttt is refused before a run starts."""
        return ()

    def record(self, evaluation: Poll) -> PollRecord:
        """The record of a poll for the journal."""
        return PollRecord.of(evaluation)

    def read(self, value: dict[str, Any]) -> PollRecord:
        """The record of a poll from its JSON object in the journal."""
        return poll_from_json(value)

    def out_of_time(self, problem: AskedQuestion | None) -> bool:
        """No: questions have no limit of time."""
        return False

    def time_is_up(self) -> bool:
        """No: questions have no limit of time."""
        return False

    def publish(self, folder: Path, records: Iterable[QuestionRecord]) -> None:
        """Nothing: the journal and the report are all that a run of questions writes."""

    def rollouts(self, evaluation: Poll) -> Sequence[Rollout]:
        """The responses of a poll, the greedy one last."""
        return evaluation.rollout_G

    def lines(self, name: str, evaluation: Poll) -> Iterator[dict[str, Any]]:
        """The responses of a poll with their answers, for the file of rollouts; the greedy one is last."""
        for rollout, answer in zip(evaluation.rollout_G, evaluation.ballots.answer_G, strict=True):
            line = rollout_line(
                rollout, answer.text, answer.invalid, evaluation.view_key_V[rollout.view] if evaluation.view_key_V else None
            )
            yield {"poll": name, "greedy": rollout is evaluation.greedy, **line}

    async def _held(self, problem: AskedQuestion, sampling: Sampling, rollouts: Sequence[Rollout], greedy: Rollout | None = None) -> Poll:
        """Judge the samples and the greedy response, and hold a majority vote and a confidence vote over the samples."""
        group = replace(Group.begin(problem.prompts_of(0)), rollout_G=tuple(rollouts))
        everyone = replace(group, rollout_G=(*group.rollout_G, *([greedy] if greedy else [])))
        ballots = await self.ballots(problem, everyone)
        votes = votes_of(ballots, group)
        return Poll(
            sampling=sampling,
            group=group,
            greedy=greedy,
            ballots=ballots,
            election=majority(votes, VoteConfig.of(self.config)),
            confidence=confidence_vote(votes, VoteConfig.of(self.config)),
            view_key_V=tuple(view.key for view in problem.view_V),
        )
