"""The votes of an evaluation where ours differ from the original's on purpose, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sttrl.arc.submission import read_submission
from sttrl.arc.views.key import View
from sttrl.errors import DataError
from sttrl.trm.augmentations import read_identifier
from sttrl.trm.data.moves import MOVES
from sttrl.trm.votes import ArcVotes, Ballot


def test_a_prediction_without_cells_is_missing_in_the_submission(tmp_path: Path) -> None:
    ballot = one_vote([[0] * 9], [[2, 1, 0, 1, 1, 0, 0, 0, 0]])
    assert ballot.ranking["a", 0][0].grid == () and ballot.missing == 1
    assert ballot.submission == {"a": [{"attempt_1": [[0]], "attempt_2": [[0]]}]}
    (tmp_path / "submission.json").write_text(json.dumps(ballot.submission))
    assert read_submission(tmp_path / "submission.json") == {"a": ((((0,),), ((0,),)),)}


def test_a_test_input_without_a_vote_keeps_its_place_and_is_counted() -> None:
    puzzles = {"a": {"test": [{"input": [[5]], "output": [[1]]}, {"input": [[0]], "output": [[1]]}]}}
    votes = ArcVotes(["<blank>", "a"], puzzles)
    votes.update([[2] + [1] + [0] * 7], [[3] + [1] + [0] * 7], [1], [0.0])
    ballot = votes.result()
    assert ballot.submission["a"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}, {"attempt_1": [[1]], "attempt_2": [[1]]}]
    assert (ballot.missing, ballot.outputs, ballot.metrics["ARC/pass@1"]) == (1, 2, 0.5)


def test_padding_does_not_vote_wherever_it_is() -> None:
    """Peer fault 12: the halting logits are cut with the rows, so padding need not come last."""
    puzzles = {"a": {"test": [{"input": [[0]], "output": [[1]]}]}}
    votes = ArcVotes(["<blank>", "a"], puzzles)
    row, answer = [2, 1, 0, 1, 1, 0, 0, 0, 0], [3, 1, 0, 1, 1, 0, 0, 0, 0]
    votes.update([[0] * 9, row], [[0] * 9, answer], [0, 1], [9.0, 0.0])
    assert votes.result().ranking["a", 0][0].mean_q == 0.5


def test_without_solutions_there_are_no_scores() -> None:
    puzzles = {"a": {"test": [{"input": [[0]], "output": [[0]]}]}}
    assert ArcVotes(["<blank>", "a"], puzzles).result().metrics == {}


def test_votes_of_other_data_are_counted_as_unmatched() -> None:
    votes = ArcVotes(["<blank>", "a", "b"], {"a": {"test": [{"input": [[0]], "output": [[1]]}]}})
    row = [7, 1, 0, 1, 1, 0, 0, 0, 0]
    votes.update([row, row], [row, row], [1, 2], [0.0, 0.0])
    assert votes.result().unmatched == 2


def test_an_unknown_identifier_is_one_line() -> None:
    votes = ArcVotes(["<blank>", "a"], {"a": {"test": [{"input": [[0]], "output": [[1]]}]}})
    with pytest.raises(DataError, match=r"identifier 2, and identifiers\.json names 2"):
        votes.update([[2] * 9], [[2] * 9], [2], [0.0])


@pytest.mark.parametrize("ranks", [1, 2])
def test_many_different_candidates_take_little_memory(ranks: int) -> None:
    """Grids are kept as bytes, and so are votes in their state."""
    row, random = [2] + [0] * 899, np.random.default_rng(0)
    puzzles = {"a": {"test": [{"input": [[0]], "output": [[1]]}]}}
    preds = random.integers(2, 12, (2000, 900), dtype=np.uint8)
    tracemalloc.start()
    parts = [ArcVotes(["<blank>", "a"], puzzles) for _ in range(ranks)]
    for start in range(0, 2000, 100):
        parts[start // 100 % ranks].update([row] * 100, preds[start : start + 100], [1] * 100, [0.0] * 100)
    states = [part.state() for part in parts]
    ballot = parts[0].merge(states).result()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(ballot.ranking["a", 0]) == 2000
    assert kept < 2000 * 3000  # the votes, their states and the result
    for vote, pred in zip(ballot.ranking["a", 0], preds, strict=True):
        assert np.array_equal(np.ravel(vote.grid) + 2, pred)  # ties keep the order of the votes


def one_vote(preds: list[list[int]], inputs: list[list[int]]) -> Ballot:
    votes = ArcVotes(["<blank>", "a"], {"a": {"test": [{"input": [[0]], "output": [[1]]}]}})
    votes.update(inputs, preds, [1], [0.0])
    return votes.result()


@pytest.mark.parametrize(("number", "key"), tuple(enumerate(["", "rot90", "rot180", "rot270", "flip1", "flip0", "tp", "rot180.tp"])))
def test_symmetries_are_those_of_the_views_of_sttrl_arc(number: int, key: str) -> None:
    grid = ((1, 2, 3), (4, 5, 6))
    assert MOVES[number](np.asarray(grid)).tolist() == [list(row) for row in View.read(key).apply(grid)]


@pytest.mark.parametrize("name", ["a|||t8|||0123456789", "a|||t1|||0113456789", "a|||t1", "a|||x1|||0123456789", "a|||t1|||012345678"])
def test_identifiers_that_cannot_be_undone_are_one_line(name: str) -> None:
    with pytest.raises(DataError, match="The identifier"):
        read_identifier(name)
