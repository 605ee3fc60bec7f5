"""ARC tasks as a kind of problem. A policy is evaluated by searching replies to every test input under views, and choosing among them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from sttrl.arc.candidates import GUESSES, Candidate, Find, ViewReplies, candidates_of, promising, read_replies, with_experts
from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.experts import Expert, score_experts
from sttrl.arc.grids import Grid
from sttrl.arc.problem import TaskProblem, ViewChoice, views_of
from sttrl.arc.records import HELD_OUT, CandidateRecord, TaskRecord, TestRecord, answer_text, answers_of, grid_text, record_from_json
from sttrl.arc.reuse import NOTHING, Known, Reused
from sttrl.arc.rewards import RewardParts, reward
from sttrl.arc.search import SEARCHES, Ask, BeamConfig, Found, Limits, SampleConfig, SearchConfig, ThresholdConfig
from sttrl.arc.selected import Selected
from sttrl.arc.selections import selection_of
from sttrl.arc.submission import SUBMISSION, write_submission
from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.time_left import TimeLeft
from sttrl.arc.training_set import as_row, puzzles_of
from sttrl.arc.views.key import IDENTITY, View
from sttrl.config import RunConfig, to_plain
from sttrl.engine.base import Policy
from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.records import QuestionRecord
from sttrl.ledger.rollouts import rollout_line
from sttrl.ledger.seeds import SeedSource, seed_of
from sttrl.types import Answer, Ballots, Group, Rollout, Row

BASE, ADAPTING = 0.25, 0.7
"""The fractions of a task's seconds after which the search of the base ends, and adapting."""
Clock = Callable[[str, str], AbstractContextManager[None]]
"""(problem id, activity) -> a context manager that counts the seconds spent in it."""


@asynccontextmanager
async def opened_arc(
    config: RunConfig, setting: Setting, now: Callable[[], float] = time.monotonic
) -> AsyncIterator[Callable[[SeedSource, Clock], Arc]]:
    """A function that makes the kind for a runner. ``now``: the clock of the limits of time, in seconds."""
    yield partial(Arc, config, setting, TimeLeft(config, setting.chosen, now))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the kind knows of a run.

    ``tasks``: all tasks of the data set. ``chosen``: how many of them the run does. ``reply_tokens``: the most tokens of a reply.
    ``end_T``: the tokens at which the engine ends a response. ``train_tasks``: the tasks of ``--train_dataset``; empty: each task trains on
    its own demonstrations. ``known``: what another run has searched and scored.
    """

    tasks: tuple[Task, ...]
    chosen: int
    reply_tokens: int
    end_T: frozenset[int]
    train_tasks: tuple[Task, ...] = ()
    known: Known = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of a policy on a task.

    ``view_V``: the views under which every test input was searched. ``found_KV``: what the search found for each test input and view.
    ``candidate_K``: all candidates; ``selected_K``: those that were scored, from best to worst. ``rollout_G``: the replies.
    """

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

    training: ClassVar[None] = None

    def __init__(self, config: RunConfig, setting: Setting, time_left: TimeLeft, seeds: SeedSource, clock: Clock) -> None:
        self.config, self.setting, self.time, self.seeds, self.clock = config, setting, time_left, seeds, clock
        self.views = ViewChoice.of(to_plain(config))
        self.answers: dict[tuple[str, int], tuple[Grid, ...]] = {}
        # One policy for all tasks is trained on their rows in turn.
        self.rows = lru_cache(maxsize=None if config.trains_together else 8)(self._rows)

    @property
    def response_tokens(self) -> int:
        """The most tokens of a response: those of the largest grid, or ``--max_response_tokens`` if that is less."""
        return min(self.config.sampling.max_response_tokens, self.setting.reply_tokens)

    async def evaluate(self, stage: Literal["base", "adapted"], problem: TaskProblem, policy: Policy) -> Evaluation:
        """Search replies to every test input under views, score the candidates under others, and choose.

        Seeds are the same at every stage.
        """
        self.time.begin(problem.id, stage)
        view_V = views_of(self.views, problem.task, "views")
        late = self.time.search_ends(problem.id, BASE if stage == "base" else 1.0)
        known_K = [self.setting.known.get((stage, problem.id, k), NOTHING) for k in range(len(problem.task.tests))]
        found_KV = await self._searched(problem, view_V, policy, late, known_K)
        read_K = [self._read(problem, k, view_V, found_V, known_K[k]) for k, found_V in enumerate(found_KV)]
        candidate_K = [candidates_of(finds) for finds, _ in read_K]
        scored_K, tokens = await self._scored(problem, candidate_K, policy, known_K)
        return Evaluation(
            version=policy.version,
            view_V=view_V,
            found_KV=found_KV,
            candidate_K=tuple(with_scores(every, scored) for every, scored in zip(candidate_K, scored_K, strict=True)),
            selected_K=tuple(selection_of(self.config.arc.selection)(scored) for scored in scored_K),
            unreadable_K=tuple(bad for _, bad in read_K),
            rollout_G=tuple(self._rollouts(problem, [found for found_V in found_KV for found in found_V], policy.version)),
            scored_tokens=tokens,
        )

    async def baseline(self, problem: TaskProblem, base: Policy, budget: int, reused: Sequence[Rollout]) -> None:
        """None: a search has no number of samples, so the base cannot be given more tokens."""

    async def ballots(self, problem: TaskProblem, group: Group) -> Ballots:
        """The grids of a group of responses to one of the problem's turns, in the space of the task; equal grids are one class."""
        with self.clock(problem.id, "judge"):
            turn = problem.turn_by_prompt[group.prompt_T]
            query = None if turn.puzzle.query is None else turn.view.apply(turn.puzzle.query)
            grids = [self._grid(problem, r.token_T, query, ended=r.finish == "stop") for r in group.rollout_G]
        number = HELD_OUT if turn.test is None else turn.test
        texts = [None if isinstance(grid, Unreadable) else answer_text(number, turn.view.invert(grid)) for grid in grids]
        class_of = {text: place for place, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
        known = turn.puzzle.answer
        shown = None if known is None else turn.view.apply(known)
        chosen = self.config.arc_reward
        parts = RewardParts(format=chosen.reward_format, shape=chosen.reward_shape, cells=chosen.reward_cells, exact=chosen.reward_exact)
        cut = [r.finish != "stop" for r in group.rollout_G]
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
        others, chosen, scribe = self.setting.train_tasks, self.config.arc_training, problem.scribe
        task = others[problem.index % len(others)] if others else problem.task
        seed = seed_of(self.config.run.seed, task.id, "rows", 0, 0)
        puzzles = puzzles_of(task, self.config.ttt.ttt_rows, chosen, scribe, seed)
        return tuple(row for puzzle in puzzles if (row := as_row(puzzle, scribe, chosen.train_loss)) is not None)

    def out_of_time(self, problem: TaskProblem | None) -> bool:
        """Whether adapting has used its share of the seconds of a task, or of the run; the rest is for the search."""
        return self.time.out_of_time(None if problem is None else problem.id, ADAPTING)

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
                    cut=dict(sum((Counter[str]({cut.reason: cut.branches}) for f in found_V for cut in f.cut), Counter[str]())),
                )
                for every, selected, bad, found_V in zip(
                    evaluation.candidate_K, evaluation.selected_K, evaluation.unreadable_K, evaluation.found_KV, strict=True
                )
            ],
            scored_tokens=evaluation.scored_tokens,
            tokens=evaluation.scored_tokens + sum(f.tokens for found_V in evaluation.found_KV for f in found_V),
            requests=sum(f.requests for found_V in evaluation.found_KV for f in found_V),
        )

    def read(self, value: dict[str, Any]) -> Evaluated:
        """The record of an evaluation from its JSON object in the journal."""
        return record_from_json(value)

    def publish(self, folder: Path, records: Iterable[QuestionRecord]) -> None:
        """Write submission.json with all tasks of the data set. What is not answered yet is ``[[0]]``."""
        for record in records:
            self.answers |= answers_of(record)
            self.time.finished(record.id)
        write_submission(folder / SUBMISSION, self.setting.tasks, self.answers)

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

    async def _searched(
        self, problem: TaskProblem, view_V: Sequence[View], policy: Policy, late: Callable[[], bool], known_K: Sequence[Reused]
    ) -> tuple[tuple[Found, ...], ...]:
        """What the search finds for each test input and view; nothing for a view of which all is known.

        With guesses the first view is searched before the others, and the best grid that it found is their guess.
        """
        asked_KV = [
            [None if view.key in known.find_of else ask for view, ask in zip(view_V, ask_V, strict=True)]
            for known, ask_V in zip(known_K, self._asks(problem, view_V), strict=True)
        ]
        if self.config.arc.search_guess == "no":
            return await self._found(policy, asked_KV, late)
        first_K = await self._found(policy, [ask_V[:1] for ask_V in asked_KV], late)
        guided_K = [self._guided(problem, k, view_V, ask_V, first_K[k], known_K[k])[1:] for k, ask_V in enumerate(asked_KV)]
        return tuple((*first, *rest) for first, rest in zip(first_K, await self._found(policy, guided_K, late), strict=True))

    async def _found(
        self, policy: Policy, asked_KV: Sequence[Sequence[Ask | None]], late: Callable[[], bool]
    ) -> tuple[tuple[Found, ...], ...]:
        """What the search finds for each ask, all in one batch; nothing where nothing is asked."""
        search, asks = SEARCHES[self.config.arc.search], [ask for ask_V in asked_KV for ask in ask_V if ask is not None]
        found = iter(await search(policy, asks, self._search_config(), out_of_time=late) if asks else ())
        return tuple(tuple(Found(reply_G=(), requests=0, tokens=0) if ask is None else next(found) for ask in ask_V) for ask_V in asked_KV)

    def _guided(
        self, problem: TaskProblem, k: int, view_V: Sequence[View], ask_V: Sequence[Ask | None], found_V: Sequence[Found], known: Reused
    ) -> list[Ask | None]:
        """What is asked for a test input under each view, with the best grid of the views that were searched as a guess."""
        best = GUESSES[self.config.arc.search_guess](self._read(problem, k, view_V[: len(found_V)], found_V, known)[0])
        if best is None:
            return list(ask_V)
        query, scribe = problem.task.tests[k], problem.scribe
        guesses = [scribe.reply(view.apply(query), view.apply(best)) for view in view_V]
        return [ask and replace(ask, guess_G=(guess,)) for ask, guess in zip(ask_V, guesses, strict=True)]

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

    def _search_config(self) -> SearchConfig:
        chosen = self.config.arc
        return SearchConfig(
            max_tokens=self.setting.reply_tokens,
            end_T=self.setting.end_T,
            limits=Limits(requests=chosen.search_requests, tokens=chosen.search_tokens),
            threshold=ThresholdConfig(min_prob=chosen.min_prob),
            sample=SampleConfig(temperature=self.config.sampling.temp, top_p=self.config.sampling.top_p),
            beam=BeamConfig(width=chosen.beam_width),
        )

    def _read(
        self, problem: TaskProblem, k: int, view_V: Sequence[View], found_V: Sequence[Found], known: Reused = NOTHING
    ) -> tuple[list[Find], tuple[Unreadable, ...]]:
        """The grids that were found for a test input, in the space of the task, and the replies that are no grid."""
        finds, bad = list[Find](), list[Unreadable]()
        for view, found in zip(view_V, found_V, strict=True):
            finds += known.find_of.get(view.key, ())
            query, codec = view.apply(problem.task.tests[k]), problem.scribe.codec
            texts = tuple((problem.scribe.text(reply.token_T), reply.nll) for reply in found.reply_G if reply.ended)
            group = None if view.vote_group == IDENTITY else view.vote_group
            replies = ViewReplies(view=view.key, reply_G=texts, invert=view.invert, group=group)
            read, unread = read_replies(replies, partial(codec.read, query=query))
            finds += read
            bad += [*unread, *(Unreadable(reason="cut at the token limit") for reply in found.reply_G if not reply.ended)]
        return finds, tuple(bad)

    async def _scored(
        self, problem: TaskProblem, candidate_K: Sequence[Sequence[Candidate]], policy: Policy, known_K: Sequence[Reused]
    ) -> tuple[list[tuple[Candidate, ...]], int]:
        """The most promising candidates of each test input, scored under every view of the product of experts, and the tokens scored."""
        kept_K = [promising(candidates, self.config.arc.most_candidates) for candidates in candidate_K]
        view_V = views_of(self.views, problem.task, "experts")
        experts_K = [
            [self._expert(problem, k, view, kept, known) for view in view_V] if kept else []
            for k, (kept, known) in enumerate(zip(kept_K, known_K, strict=True))
        ]
        every = [expert for experts in experts_K for expert in experts]
        if not every:
            return [tuple(kept) for kept in kept_K], 0
        # One call for all test inputs: the candidates of one are no candidates of another, so each has its own part of the result.
        width = max(map(len, kept_K))
        nll_C = await score_experts(
            policy, [spread(expert, k, width, len(kept_K)) for k, experts in enumerate(experts_K) for expert in experts]
        )
        tokens = sum(len(reply) for expert in every for reply in expert.reply_C if reply is not None)
        scored_K = list[tuple[Candidate, ...]]()
        keys = [view.key for view in view_V]
        for k, (kept, known) in enumerate(zip(kept_K, known_K, strict=True)):
            own_C = nll_C[k * width : k * width + len(kept)]
            scored_K.append(with_experts(kept, [known.with_known(c, nll, keys) for c, nll in zip(kept, own_C, strict=True)]))
        return scored_K, tokens

    def _expert(self, problem: TaskProblem, k: int, view: View, candidates: Sequence[Candidate], known: Reused) -> Expert:
        query = view.apply(problem.task.tests[k])
        encoded = problem.scribe.encoded(view.on(Puzzle(demos=problem.task.demos, query=problem.task.tests[k])))
        assert encoded is not None, "a task that is too long is left out when the problems are built"
        replies = tuple(None if known.known(c, view.key) else problem.scribe.reply(query, view.apply(c.grid)) for c in candidates)
        return Expert(view=view.key, prompt_T=encoded.token_T, reply_C=replies)

    def _grid(self, problem: TaskProblem, token_T: Sequence[int], query: Grid | None, ended: bool) -> Grid | Unreadable:
        if not ended:
            return Unreadable(reason="cut at the token limit")
        return problem.scribe.codec.read(problem.scribe.text(token_T), query)

    def _rollouts(self, problem: TaskProblem, found: Sequence[Found], version: int) -> Iterator[Rollout]:
        for each in found:
            for reply in each.reply_G:
                yield Rollout(
                    seed=0,
                    version=version,
                    token_T=reply.token_T,
                    logprob_T=reply.logprob_T,
                    finish="stop" if reply.ended else "length",
                    text=problem.scribe.text(reply.token_T),
                )


def spread(expert: Expert, k: int, width: int, tests: int) -> Expert:
    """An expert of test input ``k`` among all test inputs: it scores the candidates of its own, at their places among all."""
    replies = [*expert.reply_C, *([None] * (width - len(expert.reply_C)))]
    blank = [None] * width
    reply_C = tuple(reply for test in range(tests) for reply in (replies if test == k else blank))
    return Expert(view=expert.view, prompt_T=expert.prompt_T, reply_C=reply_C)


def with_scores(every: Sequence[Candidate], scored: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """All candidates, with the NLLs of those that were scored."""
    by_grid = {candidate.grid: candidate for candidate in scored}
    return tuple(by_grid.get(candidate.grid, candidate) for candidate in every)


def candidate_records(every: Sequence[Candidate], selected: Selected) -> list[CandidateRecord]:
    """The ranked grids, also those that no view found (marc), and after them the candidates that were not scored."""
    by_grid = {candidate.grid: candidate for candidate in every}
    score_of: dict[Grid, float | None] = dict(zip(selected.grid_R, selected.score_R, strict=True))
    score_of |= {grid: None for grid in by_grid if grid not in score_of}
    return [
        CandidateRecord(
            grid=grid_text(grid),
            score=score,
            search_nll={find.view: find.nll for find in by_grid[grid].find_F} if grid in by_grid else {},
            expert_nll=by_grid[grid].expert_nll if grid in by_grid else {},
        )
        for grid, score in score_of.items()
    ]
