"""Selections: each ranks the candidates of a test input; the first two are the attempts. Pure functions.

To add a selection that gives every candidate a score, write the score as ``Candidate -> float``, higher is better, and add a line
``by(score)`` to `SELECTIONS`. Any other is a function ``Sequence[Candidate] -> Selected``. Candidates come in the order in which they
were found first, and of equal scores the candidate that was found first is ranked first. A selection that lives elsewhere is named as
``package.module:Name``; see `ExpertSelection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from sttrl.arc.candidates import Candidate
from sttrl.arc.grids import shape
from sttrl.arc.marc_vote import marc_vote
from sttrl.arc.selected import Selected
from sttrl.config.arc import SELECTION, WITHOUT_EXPERTS
from sttrl.config.extensions import Part, check_fits, imported
from sttrl.voting.ranking import rank

Selection = Callable[[Sequence[Candidate]], Selected]
"""Ranks candidates."""

BONUS: Final = 3.0
"""What each view adds to a log-prob, so that a grid found under more views is better (ARChitects 2024)."""


def by(score: Callable[[Candidate], float]) -> Selection:
    """The selection that ranks by a score, higher is better."""

    def selection(candidates: Sequence[Candidate]) -> Selected:
        return Selected.of(candidates, rank([score(candidate) for candidate in candidates]))

    return selection


def experts_of(candidate: Candidate) -> tuple[float, ...]:
    """The NLLs of the product of experts. Raises ValueError if the candidate was not scored."""
    if not candidate.expert_nll:
        raise ValueError("this selection needs the NLLs of the product of experts, and a candidate has none")
    return tuple(candidate.expert_nll.values())


def with_bonus(nlls: Sequence[float]) -> float:
    """Sum of 3 - NLL."""
    return math.fsum(BONUS - nll for nll in nlls)


def probsum(candidate: Candidate) -> float:
    """Sum of the probabilities of the finds."""
    return math.fsum(math.exp(-nll) for nll in candidate.search_nll)


def probsum_likeliest_shape(candidates: Sequence[Candidate]) -> Selected:
    """By `probsum`, with the grids of the likeliest shape first (Kaggle 2024, ``score_all_probsum``).

    A shape scores the sum over its grids of the probability of their first finds; of equal ones the shape found first wins.
    """
    shapes: dict[tuple[int, int], float] = {}
    for candidate in candidates:
        size = shape(candidate.grid)
        shapes[size] = shapes.get(size, 0.0) + math.exp(-candidate.search_nll[0])
    best = max(shapes, key=lambda size: shapes[size], default=None)
    ranking = rank([probsum(candidate) for candidate in candidates], [shape(candidate.grid) == best for candidate in candidates])
    return Selected.of(candidates, ranking)


SELECTIONS: Final[dict[str, Selection]] = {
    "first": by(lambda candidate: 0.0),
    "majority": by(lambda candidate: float(len(candidate.find_F))),
    "max_gen_prob": by(lambda candidate: -min(candidate.search_nll)),
    "max_aug_prob": by(lambda candidate: -min(experts_of(candidate))),
    "min_aug_prob": by(lambda candidate: -max(experts_of(candidate))),
    "sum_aug_prob": by(lambda candidate: math.fsum(math.exp(-nll) for nll in experts_of(candidate))),
    "mul_aug_prob": by(lambda candidate: -math.fsum(experts_of(candidate))),
    "mul_aug_prob_3": by(lambda candidate: with_bonus(experts_of(candidate))),
    "mul_all_prob": by(lambda candidate: with_bonus((*experts_of(candidate), *candidate.search_nll))),
    "full_probmul_3": by(lambda candidate: with_bonus(candidate.search_nll) + with_bonus(experts_of(candidate))),
    "kgmon": by(lambda candidate: len(candidate.find_F) - fmean(experts_of(candidate))),
    "probsum": by(probsum),
    "probsum_likeliest_shape": probsum_likeliest_shape,
    "marc": marc_vote,
}
"""``mul_aug_prob`` is PoE's and ``mul_aug_prob_3`` that of ARChitects 2024, whose default is ``mul_all_prob``. ``full_probmul_3`` is
Kaggle's and NVARC's; ``kgmon`` is NVARC's: times found minus the mean NLL."""


@dataclass(frozen=True, kw_only=True)
class ExpertSelection:
    """A selection that is named as ``package.module:Name`` and reads the NLLs of the product of experts. A function is taken to read none.

    It is refused for runs without these NLLs (``--score_views 0``).
    """

    function: Selection

    def __call__(self, candidates: Sequence[Candidate]) -> Selected:
        """Rank the candidates."""
        return self.function(candidates)


def selection_of(name: str) -> Selection:
    """The selection of this name, or what ``package.module:Name`` names. Raises `UsageError` if that is no selection."""
    if name in SELECTIONS:
        return SELECTIONS[name]
    found: Any = imported(SELECTION, name)
    function = found.function if isinstance(found, ExpertSelection) else found
    check_fits(SELECTION, name, function, [Part("", ("candidates",))], "how_to_add_to_arc.md")
    selection: Selection = found
    return selection


def needs_experts(name: str) -> bool:
    """Whether a selection reads the NLLs of the product of experts. Raises what `selection_of` raises."""
    return name not in WITHOUT_EXPERTS if name in SELECTIONS else isinstance(selection_of(name), ExpertSelection)
