"""The votes of an evaluation on ARC: every variant of a test input votes for the grid that its prediction shows once mapped back.

Candidates of a test input are ranked by (votes, mean sigmoid of the halting head's logit), the larger first; ties keep the order in which
they were first seen. Source: TinyRecursiveModels' evaluators/arc.py.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sttrl.arc.grids import MISSING, Grid, as_grid
from sttrl.arc.submission import attempt_name
from sttrl.errors import DataError
from sttrl.trm.augmentations import Cells, crop, grid_hash, read_identifier

METRIC: Final = "ARC/pass@{k}"
"""The name of a metric, as the original logs it."""
PASS_KS: Final = (1, 2, 5, 10, 100, 1000)
"""How many of the best candidates may be tried, for each metric."""

Place = tuple[str, int]
"""A test input: the task's id and the number of the input, from 0."""
SubmissionFile = dict[str, list[dict[str, list[list[int]]]]]
"""A submission as its JSON file holds it."""


_VOTE: Final = np.dtype([("update", "<i4"), ("row", "<i4"), ("place", "<i4"), ("answer", "<i4"), ("q", "<f8")])
"""One vote. ``update`` and ``row`` say when it was cast, so that the votes of several ranks can be put in one order; ``place`` and
``answer`` are the numbers of a task's test input and of a grid."""
_Votes = NDArray[np.void]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A candidate of a test input. ``packed``: its grid as `packed` gives it, since there may be hundreds of thousands."""

    packed: bytes
    count: int
    mean_q: float

    @property
    def grid(self) -> Grid:
        """The grid. It has no rows where the prediction showed none."""
        rows, columns = self.packed[:2]
        cells = self.packed[2:]
        return tuple(tuple(cells[row * columns : (row + 1) * columns]) for row in range(rows))


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
        places = [(task, asked) for task, asked_I in self._asked.items() for asked in asked_I]
        self._places = {place: number for number, place in enumerate(dict.fromkeys(places))}
        self._votes: list[_Votes] = []
        self._grids: dict[bytes, int] = {}
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
        votes: list[tuple[int, int, int, int, float]] = []
        for row, asked, answer, q in zip(kept_B.tolist(), inputs_B, preds_B, q_B.tolist(), strict=True):
            made = read_identifier(self._name(int(ids_B[row])))
            place = self._places.get((made.task, grid_hash(made.undo(asked))))
            if place is None:
                self._unmatched += 1
                continue
            number = self._grids.setdefault(packed(made.undo(answer)), len(self._grids))
            votes.append((self._updates, row, place, number, q))
        self._votes.append(np.array(votes, dtype=_VOTE))
        self._updates += 1

    def state(self) -> dict[str, Any]:
        """All votes as values that JSON can hold, for another process or for a file."""
        return {
            "grids": b64encode(zlib.compress(b"".join(self._grids), level=1)).decode(),
            "places": [list(place) for place in self._places],
            "unmatched": self._unmatched,
            "updates": self._updates,
            "votes": b64encode(_joined(self._votes).tobytes()).decode(),
        }

    def merge(self, states: Sequence[Mapping[str, Any]]) -> ArcVotes:
        """A new object with the votes of all these states, one of each rank, in the order of ranks. The votes of this object are not added.

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
        parts = [merged._read(state) for state in states]
        votes, rank_V = _joined(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        merged._votes = [votes[np.lexsort((votes["row"], rank_V, votes["update"]))]]
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

    def _read(self, state: Mapping[str, Any]) -> _Votes:
        """The votes of a state with this object's numbers of test inputs and of grids. Places that the data set lacks are added."""
        votes = np.frombuffer(b64decode(state["votes"]), dtype=_VOTE).copy()
        places = [self._places.setdefault((task, asked), len(self._places)) for task, asked in state["places"]]
        grids = [self._grids.setdefault(grid, len(self._grids)) for grid in _split(zlib.decompress(b64decode(state["grids"])))]
        if len(votes):
            votes["place"] = np.array(places)[votes["place"]]
            votes["answer"] = np.array(grids)[votes["answer"]]
        return votes

    def _ranked(self) -> dict[tuple[str, str], tuple[Ranked, ...]]:
        """The candidates for each task and test input's hash, best first."""
        votes, grids, places = _joined(self._votes), list(self._grids), list(self._places)
        pair_V = votes["place"].astype(np.int64) * len(grids) + votes["answer"]
        pair_C, first_C, candidate_V, count_C = np.unique(pair_V, return_index=True, return_inverse=True, return_counts=True)
        mean_C = np.bincount(candidate_V, weights=votes["q"], minlength=len(pair_C)) / count_C  # added in the order of the votes
        place_C, answer_C = votes["place"][first_C], votes["answer"][first_C]
        order_C = np.lexsort((first_C, -mean_C, -count_C, place_C))
        columns = (column[order_C].tolist() for column in (place_C, answer_C, count_C, mean_C))
        return {
            places[place]: tuple(Ranked(packed=grids[answer], count=count, mean_q=mean) for _, answer, count, mean in rows)
            for place, rows in groupby(zip(*columns, strict=True), key=lambda row: row[0])
        }

    def _shares(self, ranking: Mapping[Place, tuple[Ranked, ...]]) -> dict[str, tuple[float, ...]]:
        """For each metric the share of each task's outputs that are among the best candidates; empty without solutions."""
        solutions = known_solutions(self._puzzles)
        if not solutions:
            return {}
        ranks = {task: [rank_of(truth, ranking[task, index]) for index, truth in enumerate(outputs)] for task, outputs in solutions.items()}
        return {
            METRIC.format(k=k): tuple(sum(rank is not None and rank <= k for rank in ranks_I) / len(ranks_I) for ranks_I in ranks.values())
            for k in self._pass_Ks
        }


def known_solutions(test_puzzles: Mapping[str, Any]) -> dict[str, tuple[Grid, ...]]:
    """The outputs of the tasks of test_puzzles.json whose outputs are all known; empty where there are none.

    The builder writes ``[[0]]`` where it has no solution. So a task with such an output counts as unknown, or one without a prediction
    would be solved.
    """
    outputs = {task: [pair.get("output") for pair in puzzle["test"]] for task, puzzle in test_puzzles.items()}
    known = {task: tuple(map(as_grid, grids)) for task, grids in outputs.items() if grids and None not in grids}
    return {task: grids for task, grids in known.items() if MISSING not in grids}


def rank_of(truth: Grid, candidates: Sequence[Ranked]) -> int | None:
    """The place of a grid among the candidates, from 1; None if it is not there."""
    wanted = packed(truth)
    return next((rank for rank, candidate in enumerate(candidates, start=1) if candidate.packed == wanted), None)


def packed(grid: Grid | Cells) -> bytes:
    """A grid as bytes: how many rows and columns it has, then its cells."""
    cells = np.asarray(grid, dtype=np.uint8).reshape(len(grid), -1 if len(grid) else 0)
    return bytes(cells.shape) + cells.tobytes()


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


def _split(grids: bytes) -> Iterator[bytes]:
    """Split bytes in which packed grids follow one another into the single packed grids."""
    start = 0
    while start < len(grids):
        end = start + 2 + grids[start] * grids[start + 1]
        yield grids[start:end]
        start = end


def _joined(parts: Sequence[_Votes]) -> _Votes:
    return np.concatenate([np.empty(0, dtype=_VOTE), *parts])


def _hash_of(grid: Sequence[Sequence[int]]) -> str:
    return grid_hash(np.asarray(grid, dtype=np.int64).reshape(len(grid), -1))


def _sigmoid(logit_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)), in a form that does not overflow for large negative logits."""
    return np.exp(-np.logaddexp(0.0, -logit_B))
