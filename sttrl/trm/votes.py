"""The votes of an evaluation on ARC: every variant of a test input votes for the grid that its prediction shows once mapped back.

Candidates of a test input are ranked by (votes, mean sigmoid of the halting head's logit), the larger first; ties keep the order in which
they were first seen. Source: TinyRecursiveModels' evaluators/arc.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sttrl.arc.grids import MISSING, Grid, as_grid
from sttrl.arc.submission import attempt_name
from sttrl.errors import DataError
from sttrl.trm.augmentations import crop, grid_hash, read_identifier

METRIC: Final = "ARC/pass@{k}"
"""The name of a metric, as the original logs it."""
PASS_KS: Final = (1, 2, 5, 10, 100, 1000)
"""How many of the best candidates may be tried, for each metric."""

Place = tuple[str, int]
"""A test input: the task's id and the number of the input, from 0."""
SubmissionFile = dict[str, list[dict[str, list[list[int]]]]]
"""A submission as its JSON file holds it."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A candidate of a test input. ``grid`` has no rows where the prediction showed none."""

    grid: Grid
    count: int
    mean_q: float


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """The result of a vote.

    ``metrics``: ``ARC/pass@K``, means over tasks; empty where no solution is known. ``missing``: test inputs of which the submission has
    no grid at all; its attempts are ``[[0]]`` there. ``unmatched``: votes that belong to no test input. ``shares``: for each metric the
    share of each task's outputs that are right.
    """

    metrics: dict[str, float]
    submission: SubmissionFile
    ranking: dict[Place, tuple[Ranked, ...]]
    missing: int
    unmatched: int
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """How many test inputs there are."""
        return len(self.ranking)


class _Vote(NamedTuple):
    """One vote. ``update`` and ``row`` say when it was cast, so that the votes of several ranks can be put in one order."""

    update: int
    row: int
    task: str
    asked: str
    answer: str
    q: float


class ArcVotes:
    """Collects votes over the batches of an evaluation, of one process or of several."""

    def __init__(
        self,
        identifiers: Sequence[str],
        test_puzzles: Mapping[str, Any],
        *,
        submission_K: int = 2,
        pass_Ks: Sequence[int] = PASS_KS,
        aggregated_voting: bool = False,
        blank_identifier_id: int = 0,
    ) -> None:
        """``identifiers`` and ``test_puzzles`` are those of the data set's files of these names.

        With ``aggregated_voting`` the votes of earlier rounds count on, as in the original: later results are an ensemble of checkpoints.
        """
        self._identifiers, self._puzzles = identifiers, test_puzzles
        self._submission_K, self._pass_Ks, self._aggregated = submission_K, tuple(pass_Ks), aggregated_voting
        self._blank = blank_identifier_id
        self._asked = {task: [_hash_of(pair["input"]) for pair in puzzle["test"]] for task, puzzle in test_puzzles.items()}
        self._votes: list[_Vote] = []
        self._grids: dict[str, Grid] = {}
        self._updates = self._unmatched = 0

    def begin_round(self) -> None:
        """Begin an evaluation. Earlier votes are forgotten, unless they aggregate."""
        if not self._aggregated:
            self._votes, self._grids, self._unmatched = [], {}, 0

    def update(self, inputs: ArrayLike, preds: ArrayLike, puzzle_identifiers: ArrayLike, q_halt_logits: ArrayLike) -> None:
        """Count a batch: tokens (B, S) of the inputs and of the predictions, puzzle ids (B,) and halting logits (B,).

        Rows with the blank identifier are padding and count nothing. Raises DataError for an id that the data set does not have.
        """
        ids_B = np.asarray(puzzle_identifiers).astype(np.int64)
        kept_B = np.flatnonzero(ids_B != self._blank)
        q_B = _sigmoid(np.asarray(q_halt_logits, dtype=np.float64)[kept_B])
        inputs_B, preds_B = crop(np.asarray(inputs)[kept_B]), crop(np.asarray(preds)[kept_B])
        for row, asked, answer, q in zip(kept_B.tolist(), inputs_B, preds_B, q_B.tolist(), strict=True):
            made = read_identifier(self._name(int(ids_B[row])))
            asked_hash = grid_hash(made.undo(asked))
            if asked_hash not in self._asked.get(made.task, ()):
                self._unmatched += 1
                continue
            grid = made.undo(answer)
            answer_hash = grid_hash(grid)
            if answer_hash not in self._grids:
                self._grids[answer_hash] = as_grid(grid.tolist())
            self._votes.append(_Vote(self._updates, row, made.task, asked_hash, answer_hash, q))
        self._updates += 1

    def state(self) -> dict[str, Any]:
        """All votes as values that JSON can hold, for another process or for a file."""
        return {
            "grids": {name: [list(row) for row in grid] for name, grid in self._grids.items()},
            "unmatched": self._unmatched,
            "updates": self._updates,
            "votes": [list(vote) for vote in self._votes],
        }

    def merge(self, states: Sequence[Mapping[str, Any]]) -> ArcVotes:
        """The votes of all these states, one of each rank and in their order; this object's own count only if they are among them.

        Votes are put in the order in which one process would have cast them: by batch, then by rank, then by row.
        """
        merged = ArcVotes(
            self._identifiers,
            self._puzzles,
            submission_K=self._submission_K,
            pass_Ks=self._pass_Ks,
            aggregated_voting=self._aggregated,
            blank_identifier_id=self._blank,
        )
        votes = [(vote, rank) for rank, state in enumerate(states) for vote in map(_Vote._make, state["votes"])]
        merged._votes = [vote for vote, _ in sorted(votes, key=lambda pair: (pair[0].update, pair[1], pair[0].row))]
        merged._grids = {name: as_grid(grid) for state in states for name, grid in state["grids"].items()}
        merged._unmatched = sum(state["unmatched"] for state in states)
        merged._updates = max((state["updates"] for state in states), default=0)
        return merged

    def result(self) -> Ballot:
        """Rank the candidates of every test input."""
        ranked = self._ranked()
        ranking = {
            (task, index): ranked.get((task, asked), ()) for task, asked_I in self._asked.items() for index, asked in enumerate(asked_I)
        }
        shares = self._shares(ranking)
        return Ballot(
            metrics={name: sum(values) / len(values) for name, values in shares.items()},
            shares=shares,
            submission=submission_of(ranking, self._submission_K),
            ranking=ranking,
            missing=sum(not any(vote.grid for vote in votes[: self._submission_K]) for votes in ranking.values()),
            unmatched=self._unmatched,
        )

    def _name(self, number: int) -> str:
        if not 0 <= number < len(self._identifiers):
            raise DataError(
                f"A batch has the puzzle identifier {number}, and identifiers.json names {len(self._identifiers)}.",
                "Give the identifiers.json of this data set.",
            )
        return self._identifiers[number]

    def _ranked(self) -> dict[tuple[str, str], tuple[Ranked, ...]]:
        """The candidates for each task and test input's hash, best first."""
        sums: dict[tuple[str, str], dict[str, Ranked]] = {}
        for vote in self._votes:
            counted = sums.setdefault((vote.task, vote.asked), {})
            old = counted.get(vote.answer) or Ranked(grid=self._grids[vote.answer], count=0, mean_q=0.0)
            counted[vote.answer] = replace(old, count=old.count + 1, mean_q=old.mean_q + vote.q)
        return {place: _sorted(tuple(counted.values())) for place, counted in sums.items()}

    def _shares(self, ranking: Mapping[Place, tuple[Ranked, ...]]) -> dict[str, tuple[float, ...]]:
        """For each metric the share of each task's outputs that are among the best candidates; empty without solutions."""
        solutions = known_solutions(self._puzzles)
        if not solutions:
            return {}
        rank = {
            (task, index): next((place for place, vote in enumerate(ranking[task, index]) if vote.grid == truth), len(ranking[task, index]))
            for task, outputs in solutions.items()
            for index, truth in enumerate(outputs)
        }
        found = {place: place_of < len(ranking[place]) for place, place_of in rank.items()}
        return {
            METRIC.format(k=k): tuple(
                sum(found[task, index] and rank[task, index] < k for index in range(len(outputs))) / len(outputs)
                for task, outputs in solutions.items()
            )
            for k in self._pass_Ks
        }


def known_solutions(test_puzzles: Mapping[str, Any]) -> dict[str, tuple[Grid, ...]]:
    """The outputs of the tasks of test_puzzles.json; empty where there are none.

    The builder writes ``[[0]]`` where it has no solutions. A file with nothing else has none, and so has a task that lacks an output.
    """
    outputs = {task: [pair.get("output") for pair in puzzle["test"]] for task, puzzle in test_puzzles.items()}
    known = {task: tuple(map(as_grid, grids)) for task, grids in outputs.items() if grids and None not in grids}
    return known if any(grid != MISSING for grids in known.values() for grid in grids) else {}


def submission_of(ranking: Mapping[Place, Sequence[Ranked]], submission_K: int, *, keep_empty: bool = False) -> SubmissionFile:
    """The best candidates of every test input as submission.json. Where there are fewer, the first is repeated.

    ``[[0]]`` stands where there is no candidate, and for a candidate without cells, which is no grid that Kaggle takes. With
    ``keep_empty`` the latter is ``[]``, as the original writes it.
    """
    submission: SubmissionFile = {}
    for (task, _), votes in ranking.items():
        best = [vote.grid for vote in votes[:submission_K]] or [MISSING]
        best += best[:1] * (submission_K - len(best))
        grids = [grid if grid or keep_empty else MISSING for grid in best]
        attempts = {attempt_name(number): [list(row) for row in grid] for number, grid in enumerate(grids, start=1)}
        submission.setdefault(task, []).append(attempts)
    return submission


def _sorted(sums: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Best first. ``mean_q`` comes as a sum."""
    means = [replace(candidate, mean_q=candidate.mean_q / candidate.count) for candidate in sums]
    return tuple(sorted(means, key=lambda candidate: (candidate.count, candidate.mean_q), reverse=True))


def _hash_of(grid: Sequence[Sequence[int]]) -> str:
    return grid_hash(np.asarray(grid, dtype=np.int64).reshape(len(grid), -1))


def _sigmoid(logit_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without an overflow for large negative numbers."""
    return np.exp(-np.logaddexp(0.0, -logit_B))
