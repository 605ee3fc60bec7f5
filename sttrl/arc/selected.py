"""What a selection returns: the candidates' grids from best to worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sttrl.arc.candidates import Candidate
from sttrl.arc.grids import Grid
from sttrl.voting.ranking import Ranking

ATTEMPTS = 2
"""Attempts that a submission has for each test input."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Grids from best to worst with their scores, higher is better. ``tied``: every set of grids with equal scores, as ranked."""

    grid_R: tuple[Grid, ...]
    score_R: tuple[float, ...]
    tied: tuple[tuple[Grid, ...], ...] = ()

    @property
    def attempts(self) -> tuple[Grid, ...]:
        """The first two."""
        return self.grid_R[:ATTEMPTS]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], ranking: Ranking) -> Selected:
        """The grids of ranked candidates."""
        return cls(
            grid_R=tuple(candidates[c].grid for c in ranking.class_R),
            score_R=tuple(ranking.score_C[c] for c in ranking.class_R),
            tied=tuple(tuple(candidates[c].grid for c in tied) for tied in ranking.tied_C),
        )
