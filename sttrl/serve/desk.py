"""The desk: it takes an order to the session, keeps the seats, and brings back the result."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sttrl.engine.base import Policy
from sttrl.errors import DataError, UsageError
from sttrl.ledger.files import whole_lines, write_json
from sttrl.ledger.journal import JOURNAL, read_finished
from sttrl.ledger.records import ElectionRecord
from sttrl.ledger.seeds import seed_source
from sttrl.library.loaded_run import load_run
from sttrl.library.session import Ask, AsyncSession
from sttrl.questions.answers import Judge
from sttrl.questions.kind import Questions
from sttrl.questions.records import Poll
from sttrl.run.attempt import Watcher
from sttrl.run.states import kept_adapter
from sttrl.serve.orders import House, Order, RefusedError
from sttrl.serve.progress import Answering, Progress, kept_rollouts
from sttrl.serve.settings import ServerSettings
from sttrl.types import Request, Rollout

REPLIES: Final = "replies.jsonl"
KEPT: Final = "kept"
OWNER: Final = "owner.json"
RETRY_S: Final = 5.0
"""Seconds in Retry-After until a request has been timed."""
MOST_SAMPLED: Final = 512
"""How many requests that do not adapt may be in flight at once."""
TIED: Final = "The vote is tied, so the base answers."
NO_ANSWER: Final = "No sample has an answer that can be extracted, so nothing was learned and the base answers."


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an order got. ``rollouts``: the answers. ``about``: what the body's ``sttrl`` says. ``spent``: tokens of adapting."""

    rollouts: tuple[Rollout, ...]
    prompt_tokens: int
    about: dict[str, Any]
    spent: dict[str, int]


class Desk:
    """Takes orders to a session. ``say`` gets lines for the operator."""

    def __init__(self, session: AsyncSession, judge: Judge, server: ServerSettings, model: str, say: Callable[[str], None]) -> None:
        self.session, self.judge, self.server, self.say = session, judge, server, say
        self.house = House(model=model, response_tokens=session.base.sampling.max_response_tokens, server=server)
        self.as_it_is = session.config_of({"adaptation_method": "none"})
        self.seats = session.base.in_flight * session.base.run.lanes
        self.adapting = self.waiting = self.sampling = 0
        self.gate = asyncio.Semaphore(self.seats)
        self.seconds = 0.0

    async def serve(
        self,
        order: Order,
        owner: str,
        folder: Path,
        told: Callable[[str], None] = lambda line: None,
        began: Callable[[], None] = lambda: None,
        patient: bool = False,
    ) -> Result:
        """Do an order. ``folder``: for what it keeps on disk. ``told`` gets each line about adapting; ``began`` is called when the order
        has a seat. ``patient``: it waits for a seat however long.

        Raises `RefusedError`, and `EngineError` if the engine cannot be started again.
        """
        start = time.monotonic()
        with refusing(order):
            if order.policy in ("base", "kept"):
                return await self._sample(order, owner, start)
            async with self._seat(order, None if patient else start):
                began()
                start = time.monotonic() if patient else start
                if order.policy == "vote":
                    return await self._vote(order, start)
                return await self._adapt(order, owner, folder, told, start)

    def check(self, order: Order, owner: str) -> None:
        """Raises `RefusedError` for an order that cannot be done: bad settings, too long a prompt, an adapter that is not there."""
        if order.kept is not None:
            self.kept(order.kept, owner)
        settings = order.settings if order.policy == "adapt" else of_vote(order)
        with refusing(order):
            self.session.problem(list(order.messages), self.session.config_of(settings))

    def kept(self, name: str, owner: str) -> Path:
        """The folder of a kept adapter. Raises `RefusedError` for one that is not there or is another client's."""
        folder = self.session.folder / KEPT / name
        missing = RefusedError(f"There is no adapter {name!r}.", param="model", status=404, code="model_not_found")
        if not name.replace("-", "").isalnum() or not (folder / OWNER).is_file():
            raise missing
        if json.loads((folder / OWNER).read_text(encoding="utf-8"))["owner"] != owner:
            raise missing
        return folder / "adapter"

    def kept_names(self, owner: str) -> list[tuple[str, int]]:
        """The kept adapters of a client, with the second at which each was made."""
        found = []
        for file in sorted((self.session.folder / KEPT).glob(f"*/{OWNER}")):
            about = json.loads(file.read_text(encoding="utf-8"))
            if about["owner"] == owner:
                found.append((file.parent.name, int(about["created"])))
        return found

    @asynccontextmanager
    async def _seat(self, order: Order, start: float | None) -> AsyncIterator[None]:
        """A seat for adapting. ``start``: when the request came; None: it waits however long. Raises `RefusedError` if all are taken and
        too many wait, and if the deadline passes."""
        if start is not None and self.gate.locked() and self.waiting >= self.server.max_waiting:
            raise RefusedError(
                f"All {self.seats} seats are taken.", status=429, code="rate_limit_exceeded", retry_s=max(1.0, self.seconds or RETRY_S)
            )
        self.waiting += 1
        try:
            async with nullcontext() if start is None else self._deadline(order, start):
                await self.gate.acquire()
        finally:
            self.waiting -= 1
        self.adapting, began = self.adapting + 1, time.monotonic()
        try:
            yield
            took = time.monotonic() - began
            self.seconds = took if not self.seconds else 0.8 * self.seconds + 0.2 * took
        finally:
            self.adapting -= 1
            self.gate.release()

    async def _sample(self, order: Order, owner: str, began: float) -> Result:
        """Answers of the base or of a kept adapter, without adapting."""
        if self.sampling >= MOST_SAMPLED:
            raise RefusedError(f"{MOST_SAMPLED} requests are in flight.", status=429, code="rate_limit_exceeded", retry_s=1.0)
        adapter = self.kept(order.kept, owner) if order.kept is not None else None
        problem = self.session.problem(list(order.messages), self.as_it_is)
        self.sampling += 1
        try:
            requests = Request.each(problem.prompt_T, order.sampling, tuple(order.seed + place for place in range(order.n)))
            async with self._deadline(order, began):
                rollouts = await self.session.sample_prompts(requests, adapter)
        finally:
            self.sampling -= 1
        return Result(rollouts=rollouts, prompt_tokens=len(problem.prompt_T), about={}, spent={})

    async def _vote(self, order: Order, began: float) -> Result:
        """A vote of the base with as many tokens as adapting with the same settings may take."""
        config = self.session.config_of({**of_vote(order), "seed": order.seed})
        problem = self.session.problem(list(order.messages), config)
        kind = Questions(config, self.judge, seed_source(order.seed), lambda problem_id, activity: nullcontext())
        count, steps, trained = (int(order.settings[name]) for name in ("n_votes", "steps", "n_train"))

        async def held(base: Policy) -> tuple[Poll, tuple[Rollout, ...]]:
            first = await base.sample(Request.each(problem.prompt_T, config.sampling_of_votes, kind.seeds(problem, "vote", 0, count)))
            mean = sum(len(r.token_T) for r in first) / len(first)
            budget = min(order.budget_tokens, round(mean * max(1, steps) * (count + trained)))
            poll = await kind.baseline(problem, base, budget, first)
            winner = poll.election.winner
            if winner is None:
                answers = await base.sample(Request.each(problem.prompt_T, order.sampling, kind.seeds(problem, "reply", 0, order.n)))
            else:
                voters = [r for r, c in zip(poll.group.rollout_G, poll.ballots.class_G, strict=False) if c == winner]
                voters.sort(key=lambda r: -sum(r.logprob_T) / max(1, len(r.logprob_T)))
                answers = tuple(voters[place % len(voters)] for place in range(order.n))
            return poll, answers

        async with self._deadline(order, began):
            poll, answers = await self.session.with_policy(held)
        election = poll.election
        record = ElectionRecord.of(election)
        about = {"method": "vote", "answer": record.answer, "vote": _shown(record), "seconds": round(time.monotonic() - began, 3)}
        about["reason"] = NO_ANSWER if not election.voters else TIED if election.abstains else None
        tokens = sum(len(r.token_T) for r in poll.group.rollout_G)
        return Result(
            rollouts=answers,
            prompt_tokens=len(problem.prompt_T),
            about={name: value for name, value in about.items() if value is not None},
            spent={"sampled": tokens, "trained": 0, "evaluated": 0},
        )

    async def _adapt(self, order: Order, owner: str, folder: Path, told: Callable[[str], None], began: float) -> Result:
        """Adapt by the runner, in a run folder of its own."""
        ask = self._ask(order, folder)
        problem = self.session.problem(list(order.messages), ask.config)
        progress = Progress(order, began, told)
        keep = ask.folder / REPLIES

        def kind_of(make: Any) -> Any:
            def kind(*given: Any) -> Answering:
                return Answering(make(*given), progress, keep)

            return kind

        watcher = Watcher(say=self.say if self.server.log_prompts else lambda line: None, track=lambda record: progress.step(record))
        try:
            async with asyncio.timeout(max(0.0, progress.seconds_left)) as limit:
                await self.session.run(ask, watcher, kind_of)
        except TimeoutError:
            if not limit.expired():
                raise
            progress.limit = "deadline_s"
        finished = await asyncio.to_thread(self._finished, ask)
        if finished is not None:
            self._recall(progress, finished, ask)
        by, rollouts = "adapted", progress.rollouts
        if not rollouts:
            by, rollouts = await self._fallback(order, progress, problem.prompt_T)
        adapter = kept_adapter(ask.folder, ask.id) if order.keep_adapter else None
        name = await asyncio.to_thread(self._keep, adapter, owner) if adapter is not None else None
        about = self._about(order, progress, finished, by, name)
        return Result(
            rollouts=rollouts,
            prompt_tokens=len(problem.prompt_T),
            about=about,
            spent={"sampled": progress.sampled, "trained": progress.trained, "evaluated": progress.evaluated},
        )

    def _ask(self, order: Order, folder: Path) -> Ask:
        settings = {**order.settings, "seed": order.seed, "val_samples": 1, "vote_same_tokens": False, "save_adapters": order.keep_adapter}
        return self.session.ask(list(order.messages), folder=folder / "run", **settings)

    def _finished(self, ask: Ask) -> Any:
        """The record of the question, if its run is finished."""
        if not (ask.folder / JOURNAL).exists():
            return None
        return next((found for found in read_finished(ask.folder)), None)

    def _recall(self, progress: Progress, finished: Any, ask: Ask) -> None:
        """Fill the progress from the journal of a finished run, which an earlier process may have done."""
        record = finished.record
        if progress.base_text is None:
            for step in finished.steps:
                progress.step(step)
            found = [sample for problem in load_run(ask.folder) for sample in problem.rollouts.read() if sample.evaluation == "base"]
            for greedy in (sample for sample in found if sample.greedy):
                progress.base_text, progress.base_answer = greedy.text, greedy.answer
            if record.stop == "time":
                progress.limit = "budget_tokens" if progress.spent + progress.last_cost > progress.order.budget_tokens else "deadline_s"
        progress.steps, progress.sampled, progress.trained = record.steps, record.tokens_sampled, record.tokens_trained
        progress.evaluated = record.tokens_evaluated
        if record.answer_source != "adapted":
            progress.rollouts = ()
        elif not progress.rollouts and (file := ask.folder / REPLIES).exists():
            progress.rollouts = kept_rollouts(json.loads(line) for line in whole_lines(file.read_bytes()))

    async def _fallback(self, order: Order, progress: Progress, prompt_T: tuple[int, ...]) -> tuple[str, tuple[Rollout, ...]]:
        """What is best by now, where no adapted policy answered, and who says it: the vote that elected its answer, or the base."""
        if progress.limit != "deadline_s":
            requests = Request.each(prompt_T, order.sampling, tuple(order.seed + place for place in range(order.n)))
            async with self._deadline(order, progress.began):
                return "base", await self.session.sample_prompts(requests)
        if progress.best is not None:
            return "vote", (progress.best,) * order.n
        if progress.base is not None:
            return "base", (progress.base,) * order.n
        raise RefusedError("The deadline passed before the first response.", param="sttrl.deadline_s", status=504, code="deadline")

    def _about(self, order: Order, progress: Progress, finished: Any, by: str, kept: str | None) -> dict[str, Any]:
        record = finished.record if finished is not None else None
        reason = record.error if record is not None else None
        if progress.limit is not None:
            reason = f"{progress.limit} allowed no more"
        elif record is not None and record.stop == "unparsable":
            reason = NO_ANSWER
        elif record is not None and record.stop == "tie" and by == "base":
            reason = TIED
        about = {
            "method": order.settings["adaptation_method"],
            "answer": record.answer if record is not None else progress.elected.answer if progress.elected else progress.base_answer,
            "answered_by": by,
            "base": {"text": progress.base_text, "answer": progress.base_answer} if progress.base_text is not None else None,
            "vote": _shown(progress.first) if progress.first is not None else None,
            "steps": progress.steps,
            "stop": record.stop if record is not None else "time",
            "status": record.status if record is not None else "done",
            "reason": reason,
            "adapter": f"sttrl/{kept}" if kept else None,
            "seed": order.seed,
            "seconds": round(time.monotonic() - progress.began, 3),
        }
        return {name: value for name, value in about.items() if value is not None}

    def _keep(self, adapter: Path, owner: str) -> str:
        """Keep an adapter under a name that nobody can guess."""
        name = uuid.uuid4().hex
        folder = self.session.folder / KEPT / name
        shutil.copytree(adapter, folder / "adapter")
        write_json(folder / OWNER, {"owner": owner, "created": int(time.time())})
        return name

    @asynccontextmanager
    async def _deadline(self, order: Order, began: float) -> AsyncIterator[None]:
        """Raises `RefusedError` when the deadline of a request that has nothing to show yet passes."""
        try:
            async with asyncio.timeout(max(0.0, began + order.deadline_s - time.monotonic())):
                yield
        except TimeoutError:
            raise RefusedError("The deadline passed before the answer.", param="sttrl.deadline_s", status=504, code="deadline") from None


def of_vote(order: Order) -> dict[str, Any]:
    """The settings of an order that holds a vote and trains nothing."""
    of_adapting = ("adaptation_method", "steps", "n_votes", "n_train", "lr")
    return {"adaptation_method": "none", **{name: value for name, value in order.settings.items() if name not in of_adapting}}


@contextmanager
def refusing(order: Order) -> Iterator[None]:
    """Turns a setting or a question that a session refuses into a `RefusedError` that names the field."""
    try:
        yield
    except DataError as error:
        raise RefusedError(str(error).replace("--", ""), param="messages") from error
    except UsageError as error:
        named = [name for name in re.findall(r"--(\w+)", error.message) if name in order.settings]
        raise RefusedError(str(error).replace("--", ""), param=f"sttrl.{named[0]}" if named else None) from error


def _shown(vote: ElectionRecord) -> dict[str, Any]:
    return {"answer": vote.answer, "share": round(vote.majority_ratio, 4), "samples": vote.samples, "voters": vote.voters}
