"""ARC tasks as a kind of problem. A policy is evaluated by searching replies to every test input under views, and choosing among them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from sttrl.arc.candidates import Candidate, Find, ViewReplies, candidates_of, read_replies, with_experts
from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.codecs.loss import RULES, weights
from sttrl.arc.experts import Expert, score_experts
from sttrl.arc.grids import Grid
from sttrl.arc.problem import TaskProblem, drawn_view, drawn_views
from sttrl.arc.records import CandidateRecord, TaskRecord, TestRecord, answer_text, grid_text, record_from_json
from sttrl.arc.rewards import RewardParts, reward
from sttrl.arc.search import SEARCHES, Ask, BeamConfig, Found, Limits, SampleConfig, SearchConfig, ThresholdConfig
from sttrl.arc.selected import Selected
from sttrl.arc.selections import SELECTIONS
from sttrl.arc.submission import write_submission
from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.views.key import View
from sttrl.arc.views.training import TrainingRow, all_demos, held_out
from sttrl.config import RunConfig
from sttrl.engine.base import Policy
from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.records import QuestionRecord
from sttrl.ledger.rollouts import rollout_line
from sttrl.ledger.seeds import SeedSource
from sttrl.types import Answer, Ballots, Group, Rollout, Row

SUBMISSION = "submission.json"
"""The file of a run that is handed in."""
Clock = Callable[[str, str], AbstractContextManager[None]]
"""(problem id, activity) -> a context manager that counts the seconds spent in it."""


@asynccontextmanager
async def opened_arc(config: RunConfig, tasks: Sequence[Task], chosen: int) -> AsyncIterator[Callable[[SeedSource, Clock], Arc]]:
    """A function that makes the kind for a runner. ``tasks``: of the whole data set. ``chosen``: how many of them the run does."""
    yield partial(Arc, config, tasks, TimeLeft(config, chosen))


class TimeLeft:
    """Shares out the seconds of a run among the tasks that are left, and knows when a task has used its own."""

    def __init__(self, config: RunConfig, tasks: int) -> None:
        self.left, self.at_once = tasks, config.in_flight * config.run.lanes
        self.task_seconds = config.arc.task_time_limit
        self.end = None if config.arc.time_limit is None else time.monotonic() + config.arc.time_limit
        self.spans: dict[str, tuple[float, float]] = {}

    def is_up(self) -> bool:
        """Whether no task may be begun any more."""
        return self.end is not None and time.monotonic() >= self.end

    def out_of_time(self, task: str, fraction: float = 1.0) -> bool:
        """Whether a task has used this fraction of its seconds, which begin when this is asked first."""
        if self.end is None and self.task_seconds is None:
            return False
        now = time.monotonic()
        if task not in self.spans:
            self.spans[task] = (now, self._seconds(now))
        begun, seconds = self.spans[task]
        return now >= begun + fraction * seconds

    def _seconds(self, now: float) -> float:
        """The seconds of a task that begins now: its share of what is left, or the limit for every task where that is less."""
        share = [] if self.end is None else [max(0.0, self.end - now) * min(1.0, self.at_once / max(1, self.left))]
        return min([*share, *([] if self.task_seconds is None else [self.task_seconds])])

    def finished(self, tasks: int) -> None:
        """Some tasks are finished."""
        self.left -= tasks


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of a policy on a task. ``view_V``: that every test input was searched under. ``found_KV``: what the search found for each
    test input and view, ``selected_K``: the candidates from best to worst, ``candidate_K``: all of them. ``rollout_G``: the replies."""

    version: int
    view_V: tuple[View, ...]
    found_KV: tuple[tuple[Found, ...], ...]
    candidate_K: tuple[tuple[Candidate, ...], ...]
    selected_K: tuple[Selected, ...]
    unreadable_K: tuple[tuple[Unreadable, ...], ...]
    rollout_G: tuple[Rollout, ...]
    scored_tokens: int


class Arc:
    """See `sttrl.run.kind.Kind`."""

    def __init__(self, config: RunConfig, tasks: Sequence[Task], clock_of_run: TimeLeft, seeds: SeedSource, clock: Clock) -> None:
        self.config, self.tasks, self.time, self.seeds, self.clock = config, tasks, clock_of_run, seeds, clock
        self.answers: dict[tuple[str, int], tuple[Grid, ...]] = {}
        self.published = False
        self.rows = lru_cache(maxsize=8)(self._rows)

    async def evaluate(self, stage: Literal["base", "adapted"], problem: TaskProblem, policy: Policy) -> Evaluation:
        """Search replies to every test input under views, score the candidates under others, and choose. Seeds are the same at every stage."""
        self.time.out_of_time(problem.id)
        view_V = self._views(problem, "views", self.config.arc.views)
        asked_KV = self._asks(problem, view_V)
        late = partial(self.time.out_of_time, problem.id, 0.25 if stage == "base" else 1.0)
        found = await SEARCHES[self.config.arc.search](
            policy, [ask for ask_V in asked_KV for ask in ask_V], self._search_config(problem), out_of_time=late
        )
        count = len(view_V)
        found_KV = tuple(tuple(found[start : start + count]) for start in range(0, len(found), count))
        read_K = [self._read(problem, k, view_V, found_V) for k, found_V in enumerate(found_KV)]
        candidate_K = [candidates_of(finds) for finds, _ in read_K]
        scored_K, tokens = await self._scored(problem, candidate_K, policy)
        return Evaluation(
            version=policy.version,
            view_V=view_V,
            found_KV=found_KV,
            candidate_K=tuple(with_scores(every, scored) for every, scored in zip(candidate_K, scored_K, strict=True)),
            selected_K=tuple(SELECTIONS[self.config.arc.selection](scored) for scored in scored_K),
            unreadable_K=tuple(bad for _, bad in read_K),
            rollout_G=tuple(self._rollouts(problem, found, policy.version)),
            scored_tokens=tokens,
        )

    async def baseline(self, problem: TaskProblem, base: Policy, budget: int, reused: Sequence[Rollout]) -> None:
        """None: the base is searched exactly as the adapted policy is, and a search has no number of samples that could be raised."""

    async def ballots(self, problem: TaskProblem, group: Group) -> Ballots:
        """The grids of a group of responses to one of the problem's turns, in the space of the task; equal grids are one class."""
        with self.clock(problem.id, "judge"):
            turn = next(turn for step, turn in enumerate(problem.turn_S) if problem.prompt_of(step) == group.prompt_T)
            query = None if turn.puzzle.query is None else turn.view.apply(turn.puzzle.query)
            grids = [self._grid(problem, r.token_T, query, ended=r.finish == "stop") for r in group.rollout_G]
        texts = [None if isinstance(grid, Unreadable) else answer_text(turn.test or 0, turn.view.invert(grid)) for grid in grids]
        class_of = {text: number for number, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
        known = turn.puzzle.answer
        shown = None if known is None else turn.view.apply(known)
        chosen = self.config.arc_reward
        parts = RewardParts(
            format=chosen.reward_format, shape=chosen.reward_shape, cells=chosen.reward_cells, exact=chosen.reward_exact
        )
        cut = [r.finish == "length" for r in group.rollout_G]
        return Ballots(
            answer_G=tuple(
                Answer(text=text, invalid=None if text is not None else "cut" if was_cut else "unparsable")
                for text, was_cut in zip(texts, cut, strict=True)
            ),
            class_G=tuple(None if text is None else class_of[text] for text in texts),
            representative_C=tuple(class_of),
            reward_G=None if shown is None else tuple(reward(grid, shown, parts) for grid in grids),
        )

    def _rows(self, problem: TaskProblem) -> tuple[Row, ...]:
        """The rows of ttt: puzzles made of the demonstrations alone, with a weight for each token. What does not fit is left out."""
        rule, made = RULES[self.config.arc_training.train_loss], list[Row]()
        for row in self._training_rows(problem.task):
            encoded = problem.scribe.encoded(row.puzzle)
            if encoded is not None and any(weight_T := weights(encoded, rule)):
                made.append(Row(token_T=encoded.token_T, weight_T=weight_T))
        return tuple(made)

    def _training_rows(self, task: Task) -> Sequence[TrainingRow]:
        count, chosen = self.config.ttt.ttt_rows, self.config.arc_training
        seed = self._seed(task.id, "rows")
        view_V = [drawn_view(len(task.demos), number, seed, chosen.train_colours) for number in range(count)]
        if chosen.train_form == "all_demos" and len(task.demos) > 1:
            return all_demos(task, view_V)
        return held_out(task, view_V[: -(-count // len(task.demos))])[:count]

    def out_of_time(self, problem: TaskProblem) -> bool:
        """Whether adapting has used its share of the task's seconds; the rest is for the search."""
        return self.time.out_of_time(problem.id, 0.7)

    def time_is_up(self) -> bool:
        """Whether no task may be begun any more."""
        return self.time.is_up()

    def record(self, evaluation: Evaluation) -> TaskRecord:
        """The record of an evaluation for the journal."""
        return TaskRecord(
            views=len(evaluation.view_V),
            selection=self.config.arc.selection,
            version=evaluation.version,
            tests=[
                TestRecord(
                    candidates=candidate_records(every, selected),
                    tied=[[selected.grid_R.index(grid) for grid in tied] for tied in selected.tied],
                    unreadable=dict(Counter(reply.reason for reply in bad)),
                    cut=dict(sum((Counter({cut.reason: cut.branches}) for f in found_V for cut in f.cut), Counter[str]())),
                )
                for every, selected, bad, found_V in zip(
                    evaluation.candidate_K, evaluation.selected_K, evaluation.unreadable_K, evaluation.found_KV, strict=True
                )
            ],
            tokens=evaluation.scored_tokens + sum(f.tokens for found_V in evaluation.found_KV for f in found_V),
            requests=sum(f.requests for found_V in evaluation.found_KV for f in found_V),
        )

    def read(self, value: dict[str, Any]) -> Evaluated:
        """The record of an evaluation from its JSON object in the journal."""
        return record_from_json(value)

    def publish(self, folder: Path, records: Iterable[QuestionRecord]) -> None:
        """Write submission.json with all tasks of the data set. What is not answered yet is ``[[0]]``."""
        new = [record for record in records if record.answer_source is not None]
        for record in new:
            task = record.polls[record.answer_source or ""]
            assert isinstance(task, TaskRecord)
            self.answers |= {(record.id, k): test.attempts for k, test in enumerate(task.tests)}
        self.time.finished(len(new) if self.published else 0)
        self.published = True
        write_submission(folder / SUBMISSION, self.tasks, self.answers)

    def rollouts(self, evaluation: Evaluation) -> Sequence[Rollout]:
        """The replies that the search found."""
        return evaluation.rollout_G

    def lines(self, name: str, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
        """The replies with their views, for the file of rollouts."""
        places = [
            (k, view) for k, found_V in enumerate(evaluation.found_KV) for view, f in zip(evaluation.view_V, found_V, strict=True)
            for _ in f.reply_G
        ]  # fmt: skip
        for (k, view), rollout in zip(places, evaluation.rollout_G, strict=True):
            yield {"poll": name, "test": k, "view": view.key, **rollout_line(rollout, None, None)}

    def _seed(self, task: str, purpose: str) -> int:
        from sttrl.ledger.seeds import seed_of

        return seed_of(self.config.run.seed, task, purpose, 0, 0)

    def _views(self, problem: TaskProblem, purpose: str, count: int) -> tuple[View, ...]:
        return drawn_views(len(problem.task.demos), count, self._seed(problem.id, purpose), self.config.arc.view_colours)

    def _asks(self, problem: TaskProblem, view_V: Sequence[View]) -> list[list[Ask]]:
        """What is asked for each test input and view."""
        samples = self.config.arc.search_samples if self.config.arc.search == "sample" else 0
        asked: list[list[Ask]] = []
        for k, test in enumerate(problem.task.tests):
            asked.append([])
            for number, view in enumerate(view_V):
                encoded = problem.scribe.encoded(view.on(Puzzle(demos=problem.task.demos, query=test)))
                assert encoded is not None, "a task that is too long is left out when the problems are built"
                seed_G = self.seeds(problem, f"search_{k}_{number}", 0, samples)
                asked[-1].append(Ask(prompt_T=encoded.token_T, seed_G=seed_G))
        return asked
