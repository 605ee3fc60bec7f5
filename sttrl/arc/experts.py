"""Product of experts: every candidate is scored under many views, which need not be those under which it was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sttrl.types import Measure, Row, TokenStats, TrainGroup


class Scorer(Protocol):
    """The part of a policy that scores given replies."""

    async def score(self, groups: Sequence[TrainGroup], measure: Measure = ...) -> tuple[tuple[TokenStats, ...], ...]:
        """Statistics of every row's tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class Expert:
    """A view that scores: its prompt, and the reply that stands for each candidate, end token included; None: not scored under this view.

    PoE and NVARC score all candidates under the same views; ARChitects 2024 draws other views for every candidate.
    """

    view: str
    prompt_T: tuple[int, ...]
    reply_C: tuple[tuple[int, ...] | None, ...]


async def score_experts(policy: Scorer, experts: Sequence[Expert]) -> tuple[dict[str, float], ...]:
    """NLL of each candidate under each view, in nats: ``nll[candidate][view]``. All views are one call of the policy.

    A view without a reply to score is left out, and so is a candidate under a view that does not score it.
    """
    asked = [(expert, rows) for expert in experts if (rows := _rows(expert))]
    candidates = max((len(expert.reply_C) for expert in experts), default=0)
    nll_C: tuple[dict[str, float], ...] = tuple({} for _ in range(candidates))
    groups = [TrainGroup(prefix_T=expert.prompt_T, row_G=tuple(rows.values())) for expert, rows in asked]
    stats_PG = await policy.score(groups, Measure()) if groups else ()
    for (expert, rows), stats_G in zip(asked, stats_PG, strict=True):
        for candidate, stats in zip(rows, stats_G, strict=True):
            assert stats.logprob_T is not None
            nll_C[candidate][expert.view] = -math.fsum(stats.logprob_T)
    return nll_C


def _rows(expert: Expert) -> dict[int, Row]:
    """The row of each candidate that the view scores."""
    scored = ((candidate, reply) for candidate, reply in enumerate(expert.reply_C) if reply is not None)
    return {candidate: Row(token_T=reply, weight_T=(1.0,) * len(reply)) for candidate, reply in scored}
