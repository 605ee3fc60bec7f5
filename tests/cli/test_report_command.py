"""The subcommand report, on run folders as runs leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saying import ROOT, Said, complaint

from sttrl.cli import main
from sttrl.config import RunConfig, to_plain
from sttrl.ledger.files import write_json
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL, Journal
from sttrl.ledger.records import BallotsRecord, ElectionRecord, QuestionRecord, StepRecord
from sttrl.questions.records import PollRecord


def election(answer: str, share: float, samples: int) -> ElectionRecord:
    return ElectionRecord(
        answer=answer, winner=0, margin=2 * share - 1, share_C=[share, 1 - share], tied_C=[], voters=samples, samples=samples,
        majority_ratio=share,
    )  # fmt: skip


def poll(right: str, good: int, version: int) -> PollRecord:
    class_G: list[int | None] = [0] * good + [1] * (4 - good) + [0]
    texts = [right, "99"]
    ballots = BallotsRecord(
        answer_G=[None if c is None else texts[c] for c in class_G], invalid_G=[None] * 5, class_G=class_G, representative_C=texts
    )
    return PollRecord(
        k=4, greedy=True, temperature=0.6, top_p=0.95, max_tokens=64, version=version, ballots=ballots,
        election=election(right, good / 4, 4), confidence=election(right, good / 4, 4), tokens=50,
    )  # fmt: skip


def fabricated(folder: Path, questions: int = 3, finished: int = 3, rows_of: str = "arithmetic-demo", **settings: Any) -> Path:
    """A run folder as a run leaves it, without having run. ``rows_of``: the data set that the questions are of."""
    from sttrl.data import SourceSpec, read_table

    config = RunConfig.of(**{"limit": questions, "val_samples": 4, **settings})
    rows = read_table(SourceSpec(dataset=rows_of, data_dir=config.data.data_dir)).rows[:questions]
    with Journal(folder) as journal:
        write_json(folder / CONFIG, to_plain(config))
        for number, row in enumerate(rows):
            right = str(row.answer)
            base, adapted = poll(right, 2, 0), poll(right, 3 + number % 2, 1)
            vote = election(right, 0.5, 4)
            step = StepRecord(
                step=0, version=0, ballots=base.ballots, election=vote, majority=vote, reward_G=[1.0] * 2 + [0.0] * 2 + [1.0], gate=None,
                tokens_sampled=40, tokens_trained=40, update=None, seconds={"sample": 1.0},
            )  # fmt: skip
            journal.begin(row.id, row.index, 1)
            journal.step(row.id, step)
            if number < finished:
                journal.question(
                    QuestionRecord(
                        id=row.id,
                        index=row.index,
                        attempt=1,
                        status="done",
                        stop="steps",
                        error=None,
                        answer=right,
                        answer_source="adapted",
                        polls={"base": base, "adapted": adapted},
                        steps=1,
                        tokens_sampled=40,
                        tokens_trained=40,
                        tokens_evaluated=100,
                        seconds={"sample": 2.0},
                    )  # fmt: skip
                )
        journal.append("attempt", attempt=1, seconds={"start_up": 1.0, "total": 9.0})
    return folder


def test_report_of_one_run(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    assert main(["report", "a"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["greedy", "mean@4", "maj@4", "pass@4"]
    rows = {line.split()[0]: line for line in table.splitlines() if line}
    assert ".500" in rows["base"] and ".833" in rows["adapted"] and "+.333" in rows["gain"]
    assert "3 won / 0 lost / 0 unchanged" in table
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {"results.jsonl", "metrics.jsonl", "summary.json", "report.html"}


def test_report_of_two_runs(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    fabricated(tmp_path / "b", val_temp=0.9)
    assert main(["report", "a", "b"]) == 0
    table = capsys.readouterr().out
    assert "A  a" in table and "B  b" in table and "Warning: not comparable: --val_temp is 0.6 and 0.9" in table
    assert "mean@k" in table


@pytest.mark.parametrize("finished", [0, 2])
def test_report_of_a_run_under_way(finished: int, tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a", finished=finished)
    journal = (tmp_path / "a" / JOURNAL).read_bytes()
    with Journal(tmp_path / "a"):
        (tmp_path / "a" / JOURNAL).write_bytes(journal + b'{"half')
        assert main(["report", "a"]) == 0
    text = capsys.readouterr().out
    assert f"{finished} finished" in text or "No question could be scored" in text
    assert (tmp_path / "a" / JOURNAL).read_bytes() == journal + b'{"half', "a report changes no journal"


def test_report_without_labels_says_so(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a", dataset="moved.jsonl")
    assert main(["report", "a"]) == 0
    assert "no labels: There is no data set or file 'moved.jsonl'" in capsys.readouterr().out


def test_report_of_what_is_no_run(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a").mkdir()
    for folder in ("a", "nowhere", str(ROOT / "main.py")):
        assert "is not a run folder" in complaint(capsys, "report", folder, code=2)
    assert list((tmp_path / "a").iterdir()) == [], "a report of nothing leaves nothing"
    fabricated(tmp_path / "b")
    (tmp_path / "b" / JOURNAL).unlink()
    assert "it has no readable journal.jsonl" in complaint(capsys, "report", "b", code=2)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "\x00"])
def test_report_of_a_run_whose_config_is_damaged(text: str, tmp_path: Path, capsys: Said) -> None:
    (fabricated(tmp_path / "a") / CONFIG).write_text(text)
    assert "config.json" in complaint(capsys, "report", "a", code=2)
