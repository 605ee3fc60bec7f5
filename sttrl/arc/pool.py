"""A pool: the candidates that several searches found for the same test inputs, selected again. No model and no labels. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sttrl.arc.candidates import Candidate, candidates_of, with_experts
from sttrl.arc.grids import Grid
from sttrl.arc.selections import SELECTIONS, needs_experts, selection_of
from sttrl.config.arc import WITHOUT_EXPERTS
from sttrl.errors import UsageError

Place = tuple[str, int]
"""(task id, index of the test input)."""
WITHOUT_NLLS: Final = frozenset({"first", "majority", "marc"})
"""The selections that read no NLL at all."""
UNEQUAL: Final = "mul_aug_prob"
"""The selection that compares sums of NLLs, so that a candidate which was scored under more views is worse for it."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search found for a test input. ``candidates``: in the order found first. ``eligible``: the grids that may be attempts.

    The other candidates were too many to be scored; their finds count where another search has the same grid.
    """

    candidates: tuple[Candidate, ...]
    eligible: frozenset[Grid]

    @property
    def choice(self) -> tuple[Candidate, ...]:
        """The candidates that may be attempts."""
        return tuple(candidate for candidate in self.candidates if candidate.grid in self.eligible)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run, a file of predictions, or a pool of them.

    ``tasks``: how many tasks it has finished. ``found``: what was found for each test input. ``answers``: its own attempts.
    ``has_nlls``: whether its finds have NLLs. ``unreadable``: predictions that are no grids.
    """

    name: str
    tasks: int
    found: Mapping[Place, Searched] = field(repr=False)
    answers: Mapping[Place, tuple[Grid, ...]] = field(repr=False)
    has_nlls: bool = True
    unreadable: int = 0

    @property
    def has_experts(self) -> bool:
        """Whether every candidate that may be an attempt was scored by the product of experts."""
        return all(candidate.expert_nll for searched in self.found.values() for candidate in searched.choice)


def pool_of(sources: Sequence[Source], selection: str | None) -> Source:
    """The pool of several sources, with the attempts that a selection chooses. Raises what `check_selection` raises."""
    chosen = selection or default_selection(sources)
    check_selection(sources, chosen)
    places = dict.fromkeys(place for source in sources for place in source.found)
    found = {place: joined([source.found.get(place) for source in sources]) for place in places}
    return Source(
        name="pool",
        tasks=len({id for id, _ in places}),
        found=found,
        answers={place: selection_of(chosen)(searched.choice).attempts for place, searched in found.items()},
        has_nlls=all(source.has_nlls for source in sources),
        unreadable=sum(source.unreadable for source in sources),
    )


def joined(searched_S: Sequence[Searched | None]) -> Searched:
    """What all sources found for a test input. The same view of two sources is two views; None: a source has not searched it."""
    there = [(number, searched) for number, searched in enumerate(searched_S) if searched is not None]
    finds = [replace(f, view=f"{number}:{f.view}") for number, searched in there for c in searched.candidates for f in c.find_F]
    nll_of: dict[Grid, dict[str, float]] = {find.grid: {} for find in finds}
    for number, searched in there:
        for candidate in searched.candidates:
            nll_of[candidate.grid] |= {f"{number}:{view}": nll for view, nll in candidate.expert_nll.items()}
    candidates = candidates_of(finds)
    return Searched(
        candidates=with_experts(candidates, [nll_of[candidate.grid] for candidate in candidates]),
        eligible=frozenset().union(*(searched.eligible for _, searched in there)),
    )


def default_selection(sources: Sequence[Source]) -> str:
    """ARChitects' selection, fair to grids that few sources have; without NLLs that of marc, without experts ``probsum``."""
    if not all(source.has_nlls for source in sources):
        return "marc"
    return "mul_all_prob" if all(source.has_experts for source in sources) else "probsum"


def check_selection(sources: Sequence[Source], selection: str) -> None:
    """Raises UsageError for a selection that reads numbers which a source does not have."""
    if selection not in WITHOUT_NLLS and (bare := next((s for s in sources if not s.has_nlls), None)):
        raise UsageError(
            f"--selection {selection} needs probabilities, and the predictions of {bare.name} have none.",
            f"Use one of {', '.join(sorted(WITHOUT_NLLS))}.",
        )
    if needs_experts(selection) and (bare := next((s for s in sources if not s.has_experts), None)):
        raise UsageError(
            f"--selection {selection} needs the product of experts, and {bare.name} has candidates without it (--score_views 0).",
            f"Use one of {', '.join(sorted(WITHOUT_EXPERTS))}.",
        )


def possible_selections(sources: Sequence[Source]) -> tuple[str, ...]:
    """The selections that `check_selection` accepts."""

    def is_possible(selection: str) -> bool:
        try:
            check_selection(sources, selection)
        except UsageError:
            return False
        return True

    return tuple(filter(is_possible, SELECTIONS))


def unequally_scored(pool: Source) -> int:
    """How many test inputs have candidates that were scored under different numbers of views."""
    return sum(len({len(candidate.expert_nll) for candidate in searched.choice}) > 1 for searched in pool.found.values())
