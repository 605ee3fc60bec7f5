"""The votes of an evaluation are those of the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trm_golden import golden

from sttrl.trm.augmentations import crop, grid_hash, read_identifier
from sttrl.trm.data.moves import MOVES
from sttrl.trm.votes import ArcVotes, Ballot, submission_of

UNIT = json.loads(golden("dataset_arc", "unit.json").read_text())
CASES = sorted(golden("evaluator").glob("*.json"))
FIELDS = ("inputs", "preds", "puzzle_identifiers", "q_halt_logits")


def a_case(file: Path) -> tuple[dict[str, Any], Any]:
    return json.loads(file.read_text()), np.load(file.with_suffix(".npz"))


def votes_of(case: dict[str, Any]) -> ArcVotes:
    return ArcVotes(case["identifiers"], case["test_puzzles"], **case["evaluator"], blank_identifier_id=case["blank_identifier_id"])


def as_recorded(ballot: Ballot) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "test_index": index,
            "ranking": [{"grid": [list(row) for row in vote.grid], "count": vote.count, "mean": vote.mean_q} for vote in votes],
        }
        for (task, index), votes in ballot.ranking.items()
    ]


def recorded(votes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "task": vote["task"],
            "test_index": vote["test_index"],
            "ranking": [
                {"grid": row["grid"], "count": row["count"], "mean": pytest.approx(row["mean_sigmoid_q"], rel=1e-12)}
                for row in vote["ranking"]
            ],
        }
        for vote in votes
    ]


def check(ballot: Ballot, wanted: dict[str, Any], submission_K: int) -> None:
    assert as_recorded(ballot) == recorded(wanted["votes"])
    assert ballot.metrics == pytest.approx(wanted["metrics"])
    assert submission_of(ballot.ranking, submission_K, keep_empty=True) == wanted["submission"]


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_votes_are_those_of_the_original(file: Path) -> None:
    case, arrays = a_case(file)
    votes = votes_of(case)
    for number, wanted in enumerate(case["rounds"], start=1):
        votes.begin_round()
        votes.update(*(arrays[f"round{number}.{field}"] for field in FIELDS))
        check(votes.result(), wanted, case["evaluator"]["submission_K"])


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_votes_of_two_ranks_are_those_of_one(file: Path) -> None:
    """A batch of 6 is halved among two ranks, with padding in the last; states travel as JSON."""
    case, arrays = a_case(file)
    ranks = [votes_of(case), votes_of(case)]
    for number, wanted in enumerate(case["rounds"], start=1):
        fields = [arrays[f"round{number}.{field}"] for field in FIELDS]
        for votes in ranks:
            votes.begin_round()
        for start in range(0, len(fields[0]), 6):
            for rank, votes in enumerate(ranks):
                votes.update(*(field[start + 3 * rank : start + 3 * rank + 3] for field in fields))
        states = [json.loads(json.dumps(votes.state())) for votes in ranks]
        check(ranks[0].merge(states).result(), wanted, case["evaluator"]["submission_K"])


def test_a_whole_evaluation_votes_as_the_original() -> None:
    folder, data = golden("evaluate"), golden("dataset_arc", "five_tasks", "out")
    arrays, inputs = np.load(folder / "all_preds.npz"), np.load(data / "test__all.npz")
    names = [name for name in inputs.files if name.endswith("inputs")]
    rows = inputs[names[0]]
    padded = np.concatenate([rows, np.zeros((len(arrays["preds"]) - len(rows), rows.shape[1]), rows.dtype)])
    votes = ArcVotes(json.loads((data / "identifiers.json").read_text()), json.loads((data / "test_puzzles.json").read_text()))
    votes.begin_round()
    for start in range(0, len(padded), 5):
        part = slice(start, start + 5)
        votes.update(padded[part], arrays["preds"][part], arrays["puzzle_identifiers"][part], arrays["q_halt_logits"][part])
    ballot, wanted = votes.result(), json.loads((folder / "evaluate.json").read_text())["metrics"]
    assert ballot.metrics == {name: value for name, value in wanted.items() if name.startswith("ARC/")}
    assert submission_of(ballot.ranking, 2, keep_empty=True) == json.loads((folder / "submission.json").read_text())
    assert ballot.unmatched == 0


@pytest.mark.parametrize("case", UNIT["crop"], ids=lambda case: str(case["shape"]))
def test_grids_are_cropped_from_the_canvas_as_in_the_original(case: dict[str, Any]) -> None:
    (grid,) = crop(np.asarray([case["canvas"]], dtype=np.uint8))
    assert list(grid.shape) == case["shape"] and grid.tolist() == case["grid"]


@pytest.mark.parametrize("case", UNIT["inverse"], ids=lambda case: case["name"])
def test_augmentations_are_undone(case: dict[str, Any]) -> None:
    made = read_identifier(case["name"])
    assert made.task == case["original_name"]
    assert made.undo(np.asarray(case["augmented"])).tolist() == case["restored"]


@pytest.mark.parametrize("case", UNIT["dihedral"], ids=lambda case: f"t{case['t']}")
def test_symmetries_and_their_inverses_are_the_originals(case: dict[str, Any]) -> None:
    assert MOVES[case["t"]](np.asarray(case["x"])).tolist() == case["y"]
    assert MOVES[case["inverse_t"]](np.asarray(case["y"])).tolist() == case["x"]


@pytest.mark.parametrize("case", UNIT["grid_hash"], ids=lambda case: str(np.shape(case["grid"])))
def test_hashes_of_grids_are_the_originals(case: dict[str, Any]) -> None:
    assert grid_hash(np.asarray(case["grid"])) == case["sha256"]
