"""The report of a training of a recursive model, from what lies in its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sttrl.ledger.journal import Journal
from sttrl.report.recursion import is_training, report_training


def run_folder(folder: Path, rows: dict[str, float], **settings: Any) -> Path:
    """A run folder with one evaluation of 10 sequences, after step 5."""
    with Journal(folder) as journal:
        for row, exact in rows.items():
            metrics = {"all.exact_accuracy": exact, "all.lm_loss": 0.5}
            journal.append(
                "evaluation", step=5, row=row, metrics=metrics, right={"all": [round(10 * exact), 10]}, shares={}, scores=None,
                missing=None, seconds=1.0,
            )  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"kind": "trm", "data_paths": ["d"], "arch": {}, **settings}))
    return folder


def test_the_report_says_what_the_controls_for_memorising_found(tmp_path: Path) -> None:
    table = report_training(run_folder(tmp_path / "run", {"plain": 0.9, "shuffled identities": 0.1}, leave_out_test_demos=True))
    said = "all.exact_accuracy is .900 [.55, 1.0] with each puzzle's own identity, and .100 [.00, .45] with that of another puzzle."
    not_trained = "The demonstrations of the tasks that are evaluated were not trained on."
    assert said in table and not_trained in table
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Memorising: all.exact_accuracy" in page and not_trained in page
    assert "Memorising" not in report_training(run_folder(tmp_path / "plain", {"plain": 0.9}))


def test_the_name_of_a_puzzle_is_no_markup(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", {"plain": 0.9})
    puzzle = {"title": "<img src=x>", "digits": False, "input": [[1]], "prediction": [], "answer": [[2]]}
    (folder / "puzzles.json").write_text(json.dumps([puzzle]))
    report_training(folder)
    page = (folder / "report.html").read_text()
    assert "&lt;img src=x&gt;" in page and "<img" not in page and page.count('aria-label="grid of 1 x 1 cells"') == 2


@pytest.mark.parametrize(
    ("config", "expected"), [('{"kind": "trm"}', True), ('{"kind": "arc"}', False), ("null", False), ("[]", False), ("{", False)]
)
def test_a_training_is_known_by_its_config(tmp_path: Path, config: str, expected: bool) -> None:
    (tmp_path / "config.json").write_text(config)
    assert is_training(tmp_path) is expected and not is_training(tmp_path / "nothing")
