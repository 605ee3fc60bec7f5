"""The tasks of a run: chosen from a data set, and made into problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from sttrl.arc.codecs.base import Codec, SmallCodec
from sttrl.arc.codecs.limits import max_new_tokens
from sttrl.arc.codecs.registry import CODECS, codec_for
from sttrl.arc.codecs.tokens import GridTokenizer
from sttrl.arc.files import first_of
from sttrl.arc.kind import Arc, Clock, Setting, opened_arc
from sttrl.arc.problem import PURPOSES, Scribe, TaskProblem, Turn, ViewChoice, drawn_view, views_of
from sttrl.arc.reuse import Known, known_of
from sttrl.arc.sources import ArcData, ArcSpec, inspect_tasks, read_tasks
from sttrl.arc.tasks import Pair, Puzzle, Task, fingerprint
from sttrl.arc.views.key import View
from sttrl.config import RunConfig, to_plain
from sttrl.data import BuiltProblems, SkippedRow
from sttrl.errors import DataError, UsageError
from sttrl.ledger.seeds import SeedSource, seed_of
from sttrl.objectives.rewards import reward_of
from sttrl.types import MOST_TOP_LOGPROBS

NO_LIMIT = 1 << 20
"""More tokens than any model was made for."""
MOST_TURNS = 1000
"""The most held-out demonstrations under views that the steps of a method ask before the first one comes again."""
SHOWN = 5
"""How many tasks a remark names."""
SMALL_VOCABULARY = 256
"""A tokenizer with at most this many tokens was cut to a codec, or made for one."""


@dataclass
class ChosenTasks:
    """See `sttrl.run.kind.Chosen`. ``arc``: the whole data set, which the submission is about. ``built``: how many problems there are."""

    config: RunConfig
    arc: ArcData = field(init=False)
    reply_tokens: int = field(init=False, default=1)
    built: int = field(init=False, default=0)
    train_tasks: tuple[Task, ...] = field(init=False, default=())
    known: Known = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Read the data set. Raises `DataError`, and `UsageError` for an id that is not there."""
        spec = ArcSpec(dataset=self.config.data.dataset, data_dir=self.config.data.data_dir)
        skips = self.config.data.on_bad_row == "skip"
        self.arc = inspect_tasks(spec) if skips else read_tasks(spec)
        if not self.arc.tasks:
            raise first_of(self.arc.faults, spec.dataset, spec.data_dir)
        unknown = set(self.config.data.ids) - {task.id for task in self.arc.tasks}
        others = self.config.arc_training.train_dataset if self.config.method.adaptation_method == "ttt" else ()
        read = [read_tasks(ArcSpec(dataset=name, data_dir=self.config.data.data_dir)).tasks for name in others]
        self.train_tasks = tuple(task for tasks in read for task in tasks)
        if unknown:
            raise UsageError(
                f"--ids: no task has the id {', '.join(map(repr, sorted(unknown)[:5]))}.",
                f"{self.arc.name} has {len(self.arc.tasks)}, such as {', '.join(task.id for task in self.arc.tasks[:3])}.",
            )

    @property
    def kind(self) -> str:
        """ARC tasks."""
        return "arc"

    @property
    def unit(self) -> str:
        """What a line of progress calls them."""
        return "tasks"

    @property
    def data(self) -> ArcData:
        """The data set, for the report."""
        return self.arc

    @property
    def revision(self) -> str | None:
        """What a resumed run must find again: the tasks' fingerprint."""
        return self.arc.fingerprint

    @property
    def training_revision(self) -> str | None:
        """The fingerprint of the tasks of ``--train_dataset``."""
        return fingerprint(self.train_tasks) if self.train_tasks else None

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The chosen tasks."""
        ids = frozenset(self.config.data.ids)
        chosen = [task for task in part_of(self.arc.tasks, self.config.arc.part) if not ids or task.id in ids]
        if not chosen:
            part = " ".join(map(str, self.config.arc.part or ()))
            raise UsageError(f"--part {part} has no task.", "Ask for fewer parts, or other --ids.")
        return tuple(chosen[: self.config.data.limit])

    @property
    def ids(self) -> tuple[str, ...]:
        """The chosen tasks' ids."""
        return tuple(task.id for task in self.tasks)

    def scribe(self, tokenizer: Any, context: int | None, replies: bool = True) -> tuple[Scribe, int, int]:
        """(what writes puzzles, the most tokens of a reply, the token that ends one). ``replies``: prompts need room for a reply.

        Raises `UsageError`.
        """
        chosen = self.config.arc_text
        name = codec_name(chosen.codec, tokenizer)
        codec = codec_for(name, tokenizer)
        check_vocabulary(name, codec, tokenizer)
        reply = max_new_tokens(codec, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])) if replies else 0
        limit = min(self.config.data.max_prompt_tokens or NO_LIMIT, (context or NO_LIMIT) - reply)
        if limit < 1:
            raise UsageError(
                f"A reply may need {reply} tokens with --codec {chosen.codec}; {self.config.engine.model} was made for {context}.",
                "Use a codec with fewer tokens a cell, such as cells with a model that `shrink` made.",
            )
        return Scribe(codec, cast(GridTokenizer, tokenizer), limit, chosen.drop_demos), reply, end_token(name, codec, tokenizer)

    def build(self, tokenizer: Any, context: int | None) -> BuiltProblems:
        """The problems, and the tasks that were left out because not even one demonstration fits. Raises `DataError` and `UsageError`."""
        check_guesses(self.config.arc.search_guess, tokenizer)
        model = Path(tokenizer.name_or_path) if tokenizer.name_or_path else None
        self.known = known_of(self.config, self.arc.tasks, self.arc.fingerprint, model)
        scribe, self.reply_tokens, end = self.scribe(tokenizer, context)
        limit = scribe.limit
        indexed = {task.id: index for index, task in enumerate(self.arc.tasks)}
        made = {task.id: self._problem(task, indexed[task.id], scribe) for task in self.tasks}
        problems = tuple(problem for problem in made.values() if problem is not None)
        left_out = self._left_out([name for name, problem in made.items() if problem is None], limit)
        if left_out and (self.config.data.on_bad_row == "stop" or not problems):
            raise DataError(f"{left_out[0]}.", "Use a model with a longer context, or give --on_bad_row skip.")
        self.built = len(problems)
        remarks = self._shortened(problems, limit)
        return BuiltProblems(problems=problems, skipped=tuple(left_out), response_tokens=self.reply_tokens, remarks=remarks, end_T=(end,))

    def _left_out(self, too_long: Sequence[str], limit: int) -> list[SkippedRow]:
        """The tasks of which not even one demonstration fits, and with ``--on_bad_row skip`` what is wrong with the files."""
        reason = f"a prompt with one demonstration has more than {limit} tokens"
        found = [SkippedRow(file=str(self.arc.path), row=None, field=f"task {name}", reason=reason) for name in too_long]
        return found + [
            SkippedRow(file=fault.file, row=None, field=f"task {fault.task}" if fault.task else "the file", reason=fault.problem)
            for fault in self.arc.faults
        ]

    def _shortened(self, problems: Sequence[TaskProblem], limit: int) -> tuple[str, ...]:
        """A line that names the tasks whose prompts have no room for all demonstrations."""
        left_out = {p.id: p.scribe.left_out(Puzzle(demos=p.task.demos, query=p.task.tests[0])) for p in problems}
        named = [f"{name} ({count} left out)" for name, count in left_out.items() if count]
        if not named:
            return ()
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        what = f"prompts of at most {limit} tokens have no room for all demonstrations of {len(named)} of {len(problems)} tasks"
        return (f"{what}; the {self.config.arc_text.drop_demos} ones are left out: {', '.join(named[:SHOWN])}{more}",)

    def opened(
        self, stop_token_ids: Sequence[int], now: Callable[[], float] = time.monotonic
    ) -> AbstractAsyncContextManager[Callable[[SeedSource, Clock], Arc]]:
        """A context in which tasks can be evaluated. ``now``: the clock of the limits of time, in seconds."""
        setting = Setting(
            tasks=self.arc.tasks,
            chosen=self.built,
            reply_tokens=self.reply_tokens,
            end_T=frozenset(stop_token_ids),
            train_tasks=self.train_tasks,
            known=self.known,
        )
        return opened_arc(self.config, setting, now)

    def _problem(self, task: Task, index: int, scribe: Scribe) -> TaskProblem | None:
        """The problem of a task; None where not even one demonstration fits."""
        chosen = ViewChoice.of(to_plain(self.config))
        views = {view for purpose in PURPOSES for view in views_of(chosen, task, purpose)}
        asked = [
            Turn(puzzle=Puzzle(demos=task.demos, query=test), view=view, test=k) for k, test in enumerate(task.tests) for view in views
        ]
        first, *prompts = (turn.prompt(scribe) for turn in (replace(asked[0], view=View()), *asked))
        turns = {turn: prompt for turn in self._turns(task) if (prompt := turn.prompt(scribe)) is not None}
        fitting = [prompt for prompt in prompts if prompt is not None]
        if first is None or len(fitting) < len(prompts) or not turns:
            return None
        longest = max(map(len, (first, *fitting, *turns.values())))
        return TaskProblem(id=task.id, index=index, prompt_T=first, task=task, scribe=scribe, longest=longest, turn_S=tuple(turns))

    def _turns(self, task: Task) -> tuple[Turn, ...]:
        """What the steps of a method that samples ask in turn: the test inputs, or with a reward of held-out demonstrations each of
        them, under views."""
        if not reward_of(self.config.reinforcement.reward).held_out:
            return test_turns(task)
        held_out = [
            Puzzle(demos=without(task.demos, number), query=pair.input, answer=pair.output) for number, pair in enumerate(task.demos)
        ]
        seed, wish = seed_of(self.config.run.seed, task.id, "turns", 0, 0), self.config.arc.view_colours
        steps = max(min(self.config.method_steps, MOST_TURNS), len(held_out))
        return tuple(
            Turn(puzzle=(puzzle := held_out[step % len(held_out)]), view=drawn_view(len(puzzle.demos), step, seed, wish), test=None)
            for step in range(steps)
        )


def part_of(tasks: Sequence[Task], part: tuple[int, int] | None) -> tuple[Task, ...]:
    """The tasks of a part, (its number from 1, number of parts), in their order; None: all. Every n-th task in an order that depends on
    the ids alone, so that the parts of several runs make up the whole."""
    if part is None:
        return tuple(tasks)
    shuffled = sorted(tasks, key=lambda task: seed_of(0, task.id, "part", 0, 0))
    mine = {task.id for task in shuffled[part[0] - 1 :: part[1]]}
    return tuple(task for task in tasks if task.id in mine)


def test_turns(task: Task) -> tuple[Turn, ...]:
    """A turn for each test input, in the plain view."""
    return tuple(Turn(puzzle=Puzzle(demos=task.demos, query=test), view=View(), test=number) for number, test in enumerate(task.tests))


def without(demos: tuple[Pair, ...], number: int) -> tuple[Pair, ...]:
    """The demonstrations but one."""
    return tuple(pair for other, pair in enumerate(demos) if other != number)


def fits(codec: Codec, tokenizer: Any) -> bool:
    """Whether a small vocabulary has all that a codec writes; a large one is taken to have it."""
    if len(tokenizer) > SMALL_VOCABULARY:
        return True
    return isinstance(codec, SmallCodec) and set(tokenizer.get_vocab()).issuperset((*codec.alphabet().plain, *codec.alphabet().special))


def check_vocabulary(name: str, codec: Codec, tokenizer: Any) -> None:
    """Raises `UsageError` for a model that was cut to another codec: what it cannot write would become padding."""
    if not fits(codec, tokenizer):
        raise UsageError(
            f"--codec {name} writes what the model's {len(tokenizer)} tokens do not have.",
            "Leave --codec out, or cut the model again with shrink.",
        )


def check_guesses(guess: str, tokenizer: Any) -> None:
    """Raises `UsageError` where the engine cannot score a guess: of a large vocabulary it reports the likeliest tokens only."""
    if guess != "no" and len(tokenizer) > MOST_TOP_LOGPROBS:
        raise UsageError(
            f"--search_guess {guess} needs a model with at most {MOST_TOP_LOGPROBS} tokens; this one has {len(tokenizer)}.",
            "Leave it out, or cut the model with shrink.",
        )


def end_token(name: str, codec: Codec, tokenizer: Any) -> int:
    """The token that ends a reply. Raises `UsageError` if the codec's end mark is no special token of the model."""
    last = int(tokenizer(codec.answer(((0,),), ((0,),)), add_special_tokens=False)["input_ids"][-1])
    known = tokenizer.added_tokens_decoder.get(last)
    if known is None or not known.special:
        raise UsageError(
            f"--codec {name} ends a reply with a mark that is no special token of the model.", "Use another codec, such as chat or cells."
        )
    return last


def codec_name(chosen: str, tokenizer: Any) -> str:
    """The codec of a run; ``auto``: the codec to which the tokenizer was cut, else chat."""
    if chosen != "auto":
        return chosen
    if len(tokenizer) > SMALL_VOCABULARY:
        return "chat"
    for name in ("cells", "cells_16", "dialogue"):
        if fits(CODECS[name](tokenizer), tokenizer):
            return name
    raise UsageError(f"The model's {len(tokenizer)} tokens fit no codec.", "Name one with --codec, or cut the model again with shrink.")
