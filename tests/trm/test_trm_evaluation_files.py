"""The files of an evaluation: the original's names and forms, every score rule, and submissions of chunks as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from trm_golden import FOLDER

from sttrl.arc.submission import read_submission
from sttrl.errors import DataError, JournalError
from sttrl.trm.evaluation_files import merge_submissions, write_evaluation
from sttrl.trm.kept_outputs import KeptOutputs
from sttrl.trm.votes import ArcVotes, Ballot, Ranked, known_solutions, packed, submission_of

Grid = tuple[tuple[int, ...], ...]
PUZZLES = {
    "a": {"test": [{"input": [[1]], "output": [[2]]}, {"input": [[3]], "output": [[4]]}]},
    "b": {"test": [{"input": [[5]], "output": [[6]]}]},
}


def ballot_of(*ranking: tuple[str, int, list[Grid]]) -> Ballot:
    votes = {(task, index): tuple(Ranked(packed=packed(grid), count=1, mean_q=0.5) for grid in grids) for task, index, grids in ranking}
    return Ballot(
        metrics={}, submission=submission_of(votes, 2), ranking=votes, missing=sum(not grids for grids in votes.values()), unmatched=0
    )


BALLOT = ballot_of(("a", 0, [((2,),)]), ("a", 1, [((0,),), ((1,),), ((4,),)]), ("b", 0, []))


def test_names_and_forms_are_the_originals(tmp_path: Path) -> None:
    """Peer fault 8: the run's folder need not exist."""
    written = write_evaluation(tmp_path / "run", "ARC", 7, BALLOT, PUZZLES)
    assert written.folder == tmp_path / "run" / "evaluator_ARC_step_7"
    submission = json.loads((written.folder / "submission.json").read_text())
    assert submission["a"][0] == {"attempt_1": [[2]], "attempt_2": [[2]]}
    assert submission["b"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}]
    assert list(read_submission(written.folder / "submission.json")) == ["a", "b"]


def test_scores_by_every_rule(tmp_path: Path) -> None:
    written = write_evaluation(tmp_path, "ARC", 7, BALLOT, PUZZLES)
    assert written.score is not None
    values = {name: (ratio.numerator, ratio.denominator) for name, ratio in written.score.rules.items()}
    assert values == {"kaggle": (1, 3), "per_task_mean": (0.5, 2), "all_or_nothing": (0, 2), "attempt_1": (1, 3), "oracle": (1.0, 2)}
    scores = json.loads((written.folder / "scores.json").read_text())
    assert scores["rules"]["kaggle"] == {"value": pytest.approx(1 / 3), "numerator": 1, "denominator": 3}
    assert (scores["missing"], scores["outputs"], scores["step"]) == (1, 3, 7)
    assert written.remarks == ["1 of 3 test inputs have no answer; [[0]] stands for it."]


def test_candidates_say_where_the_solution_is(tmp_path: Path) -> None:
    written = write_evaluation(tmp_path, "ARC", 7, BALLOT, PUZZLES)
    lines = [json.loads(line) for line in (written.folder / "candidates.jsonl").read_text().splitlines()]
    assert [(line["task"], line["test_input"], line["candidates"], line["rank_of_solution"]) for line in lines] == [
        ("a", 0, 1, 1),
        ("a", 1, 3, 3),
        ("b", 0, 0, None),
    ]


def test_without_solutions_there_is_a_submission_and_no_score(tmp_path: Path) -> None:
    puzzles = {"a": {"test": [{"input": [[1]], "output": [[0]]}, {"input": [[3]], "output": [[0]]}]}, "b": {"test": [{"input": [[5]]}]}}
    written = write_evaluation(tmp_path, "ARC", 1, BALLOT, puzzles)
    assert written.score is None and known_solutions(puzzles) == {}
    assert json.loads((written.folder / "scores.json").read_text())["rules"] == {}


def test_a_task_with_an_output_that_is_not_known_is_not_scored(tmp_path: Path) -> None:
    """Its ``[[0]]`` is no solution, which the ``[[0]]`` of a missing prediction would equal."""
    pairs = {"known": [[[7]]], "unknown": [[[0]]], "half": [[[7]], [[0]]]}
    puzzles = {name: {"test": [{"input": [[1]], "output": output} for output in outputs]} for name, outputs in pairs.items()}
    ballot = ArcVotes(["<blank>", *pairs], puzzles).result()
    written = write_evaluation(tmp_path, "ARC", 1, ballot, puzzles)
    assert set(ballot.metrics.values()) == {0.0} and set(ballot.shares.values()) == {(0.0,)}
    assert written.score is not None
    assert {(ratio.numerator, ratio.denominator) for ratio in written.score.rules.values()} == {(0, 1)}
    assert written.remarks[0].startswith("The scores are of 1 of 3 tasks")
    lines = [json.loads(line) for line in (written.folder / "candidates.jsonl").read_text().splitlines()]
    assert [line["rank_of_solution"] for line in lines] == [None] * 4


def test_submissions_of_chunks_are_one(tmp_path: Path) -> None:
    """Peer fault 11: attempt_10 comes after attempt_2."""
    many = {f"attempt_{number}": [[number % 10]] for number in (10, 2, 1)}
    (tmp_path / "a.json").write_text(json.dumps({"a": [many]}))
    (tmp_path / "b.json").write_text(json.dumps({"b": [{"attempt_1": [], "attempt_2": [[1]]}]}))
    merged = merge_submissions([tmp_path / "a.json", tmp_path / "b.json"])
    assert list(merged["a"][0]) == ["attempt_1", "attempt_2", "attempt_10"]
    assert merged["b"] == [{"attempt_1": [[0]], "attempt_2": [[1]]}]
    with pytest.raises(DataError, match=r"Task a is in .*a\.json and in .*a\.json"):
        merge_submissions([tmp_path / "a.json", tmp_path / "a.json"])
    (tmp_path / "bad.json").write_text(json.dumps({"c": [{"attempt_1": [[11]]}]}))
    with pytest.raises(DataError, match="task c, attempt_1 is no grid"):
        merge_submissions([tmp_path / "bad.json"])


def test_kept_outputs_are_the_originals(tmp_path: Path) -> None:
    """In batches as an evaluation has them, into a folder that does not exist yet."""
    path = FOLDER / "evaluate" / "all_preds.npz"
    if not path.exists():
        pytest.skip(f"no golden data at {path}")
    wanted = np.load(path)
    kept = KeptOutputs(["preds", "q_halt_logits", "puzzle_identifiers", "labels"])
    for start in range(0, 15, 5):
        kept.add({name: torch.from_numpy(wanted[name][start : start + 5]) for name in wanted.files} | {"logits": torch.zeros(5)})
    written = kept.write(tmp_path / "run", 7)
    assert written == tmp_path / "run" / "step_7_all_preds.0"
    of_original, of_ours = torch.load(written, weights_only=True), load_file(f"{written}.safetensors")
    assert set(of_original) == set(of_ours) == set(wanted.files)
    for name in wanted.files:
        assert np.array_equal(of_original[name].numpy(), wanted[name]) and np.array_equal(of_ours[name].numpy(), wanted[name])
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["step_7_all_preds.0", "step_7_all_preds.0.safetensors"]


def test_kept_outputs_that_the_disk_refuses_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors has an error of its own for a full disk."""

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("sttrl.trm.kept_outputs.save_file", full)
    kept = KeptOutputs(["preds"])
    kept.add({"preds": torch.zeros(2)})
    with pytest.raises(JournalError, match="No space left"):
        kept.write(tmp_path, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["step_1_all_preds.0"]


def test_nothing_kept_is_no_file(tmp_path: Path) -> None:
    assert KeptOutputs([]).write(tmp_path, 1) is None and list(tmp_path.iterdir()) == []
