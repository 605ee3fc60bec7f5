"""The subcommand view: what it refuses, in one line, and the page as a file. tests/fault/test_view.py has the page in a browser."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pages import held
from saying import ROOT, Said, complaint
from test_report_command import fabricated

from sttrl.cli import main
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL


def test_a_page_of_two_runs_as_a_file(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    fabricated(tmp_path / "b", finished=2, val_temp=0.9)
    assert main(["view", "a", "b", "--out", "both.html"]) == 0
    assert capsys.readouterr().out == "both.html\n"
    shown = held((tmp_path / "both.html").read_text())
    assert [run["name"] for run in shown.runs] == ["a", "b"] and [len(run["questions"]) for run in shown.runs] == [3, 3]
    assert shown.runs[1]["questions"][2]["flags"] == ["running"]
    compared = shown.index["comparison"]
    assert any("--val_temp is 0.6 and 0.9" in text for text in compared["warnings"]) and compared["rows"][0][:2] == ["B", "2"]
    assert [run["key"] for run in shown.index["runs"]] == shown.index["shown"]


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "x" / "run")
    fabricated(tmp_path / "y" / "run")
    assert main(["view", "x/run", "y/run", "--out", "both.html"]) == 0
    assert [run["name"] for run in held((tmp_path / "both.html").read_text()).runs] == ["x/run", "y/run"]


def test_what_is_no_run_is_one_line(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a").mkdir()
    for folder in ("a", "nowhere", str(ROOT / "main.py")):
        for flags in ((), ("--out", "page.html")):
            assert "is not a run folder" in complaint(capsys, "view", folder, *flags, code=2)
    assert "needs a run folder" in complaint(capsys, "view", code=2)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"v": 3, "kind": "step", "id": "x"}', '{"v": 3, "kind": "question", "id": "x"}', '{"v": 3}', '{"v": 9}']
)
def test_a_damaged_journal_is_one_line(line: str, tmp_path: Path, capsys: Said) -> None:
    folder = fabricated(tmp_path / "a")
    with (folder / JOURNAL).open("a") as journal:
        journal.write(f"{line}\n")
    said = complaint(capsys, "view", "a", code=2)
    assert JOURNAL in said and ("damaged" in said or "another schema version" in said)


def test_a_training_of_a_recursive_model_has_a_page_of_its_own(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / CONFIG).write_text(json.dumps({"kind": "trm"}))
    assert "`report` writes its page" in complaint(capsys, "view", "a", code=2)


def test_a_port_that_cannot_be_had(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} cannot be used" in complaint(capsys, "view", "a", "--port", str(port), code=2)
    assert "--port 70000 cannot be used" in complaint(capsys, "view", "a", "--port", "70000", code=2)


def test_a_sweep_is_shown_by_itself_and_its_file_may_be_damaged(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "votes" / "one")
    fabricated(tmp_path / "a")
    assert "votes is a sweep, which is shown by itself" in complaint(capsys, "view", "a", "votes", code=2)
    (tmp_path / "votes" / "sweep.json").write_text('{"rows": [1]}')
    assert "sweep.json is damaged" in complaint(capsys, "view", "votes", code=2)
    (tmp_path / "votes" / "sweep.json").unlink()
    assert main(["view", "votes", "--out", "page.html"]) == 0
    shown = held((tmp_path / "page.html").read_text())
    assert shown.index["sweep"] == {"name": "votes", "rows": []} and [run["name"] for run in shown.runs] == ["one"]
