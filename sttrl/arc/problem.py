"""A task as a problem: its views, and the prompts that are made of them when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from sttrl.arc.codecs.base import Codec
from sttrl.arc.codecs.limits import Fitted, fit
from sttrl.arc.codecs.tokens import Encoded, GridTokenizer, encode
from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.views.draws import SYMMETRIES, SeededDice, colours, order
from sttrl.arc.views.key import View
from sttrl.arc.views.marc import drawn_prompts
from sttrl.config.arc import ArcSettings, Colours
from sttrl.ledger.seeds import seed_of
from sttrl.types import Problem

Purpose = Literal["views", "experts"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""What views of a task are drawn for: to search replies, and to score the candidates."""


@dataclass(frozen=True)
class Scribe:
    """Writes puzzles as tokens. ``limit``: the most tokens of a prompt. ``drop``: which demonstrations are left out of longer ones."""

    codec: Codec
    tokenizer: GridTokenizer
    limit: int
    drop: Literal["last", "first"]

    def encoded(self, puzzle: Puzzle) -> Encoded | None:
        """The puzzle with as many demonstrations as fit; None where not even one of them does."""
        whole = encode(self.tokenizer, self.codec.write(puzzle))
        if len(whole.token_T) <= self.limit:
            return whole
        found = fit(self.codec, puzzle, lambda written: len(encode(self.tokenizer, written).token_T), self.limit, self.drop)
        return encode(self.tokenizer, self.codec.write(found.puzzle)) if isinstance(found, Fitted) else None

    def fits(self, puzzle: Puzzle) -> bool:
        """Whether a puzzle fits with all of its demonstrations."""
        return len(encode(self.tokenizer, self.codec.write(puzzle)).token_T) <= self.limit

    def left_out(self, puzzle: Puzzle) -> int:
        """How many demonstrations of a puzzle have no room in its prompt."""
        encoded = self.encoded(puzzle)
        return len(puzzle.demos) - sum(span.kind == "demo_output" for span in (encoded.spans if encoded else ()))

    def text(self, token_T: Sequence[int]) -> str:
        """The text of a reply, special tokens included."""
        return str(self.tokenizer.decode(token_T, skip_special_tokens=False))

    def reply(self, query: Grid, grid: Grid) -> tuple[int, ...]:
        """The tokens that stand for a grid as the answer to a query, end mark included."""
        text = self.codec.answer(grid, query)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one step of a method asks: a test input, or a held-out demonstration with its answer, under a view."""

    puzzle: Puzzle
    view: View
    test: int | None
    """The number of the test input; None: a held-out demonstration."""

    def prompt(self, scribe: Scribe) -> tuple[int, ...] | None:
        """Its prompt; None where not even one demonstration fits."""
        found = scribe.encoded(self.view.on(Puzzle(demos=self.puzzle.demos, query=self.puzzle.query)))
        return None if found is None else found.token_T


@dataclass(frozen=True, kw_only=True)
class TaskProblem(Problem):
    """A task. ``longest``: tokens of its longest prompt. ``turn_S``: what the steps of a method ask in turn."""

    task: Task
    scribe: Scribe = field(repr=False)
    longest: int
    turn_S: tuple[Turn, ...]

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that is sampled."""
        return self.longest

    @property
    def turns(self) -> int:
        """How many different puzzles the steps of a method ask in turn."""
        return len(self.turn_S)

    def turn_of(self, step: int) -> Turn:
        """What a step asks."""
        return self.turn_S[step % len(self.turn_S)]

    @cached_property
    def turn_by_prompt(self) -> dict[tuple[int, ...], Turn]:
        """The turn that each prompt asks; of equal prompts the first turn."""
        return {self.prompt_of(step): self.turn_S[step] for step in reversed(range(self.turns))}

    def prompt_of(self, step: int) -> tuple[int, ...]:
        """The prompt that a step asks."""
        found = self.turn_of(step).prompt(self.scribe)
        assert found is not None, "a turn that is too long is left out when the problem is built"
        return found


@dataclass(frozen=True, kw_only=True)
class ViewChoice:
    """The settings on which the views of a run depend."""

    seed: int
    view_form: str
    views: int
    score_views: int
    view_colours: Colours

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ViewChoice:
        """Those of a run's flat settings; the default form for a run that had no choice of it yet."""
        chosen = {name: settings[name] for name in ("seed", "views", "score_views", "view_colours")}
        return cls(view_form=settings.get("view_form", ArcSettings.view_form), **chosen)


def views_of(chosen: ViewChoice, task: Task, purpose: Purpose) -> tuple[View, ...]:
    """The views that a task is searched under, or that score its candidates."""
    seed = seed_of(chosen.seed, task.id, purpose, 0, 0)
    if purpose == "views" and chosen.view_form == "marc":
        return drawn_prompts(len(task.demos), SeededDice(seed))
    count = chosen.views if purpose == "views" else chosen.score_views
    return drawn_views(len(task.demos), count, seed, chosen.view_colours)


def drawn_views(demos: int, count: int, seed: int, wish: Colours) -> tuple[View, ...]:
    """The plain view, and then the eight symmetries in turn, each with random colours and all demonstrations in random order.

    A view depends on the seed and its number alone.
    """
    return (View(), *(drawn_view(demos, number, seed, wish) for number in range(1, count)))[:count]


def drawn_view(demos: int, number: int, seed: int, wish: Colours) -> View:
    """The view with this number: a symmetry in turn, random colours, and all demonstrations in random order."""
    dice, view = SeededDice(seed, number), SYMMETRIES[number % len(SYMMETRIES)]
    if wish != "no":
        view = view.then(colours(dice, keep_background=wish == "keep_background"))
    return view.then(order(dice, demos))
