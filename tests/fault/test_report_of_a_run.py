"""report.html of a real run folder: what was asked, the labels, what each side answered, and samples."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn, attempt, config_for, problems_for, results

from sttrl.ledger.folder import CONFIG
from sttrl.questions.answers import Judge
from sttrl.report.runs import report_run
from sttrl.report.texts import SAMPLES, WITHHELD

ATTACK = "<script>alert(1)</script>\u202e"


def rows(path: Path, count: int = 3, odd: str = "") -> Path:
    """A data set of sums whose labels stand nowhere else."""
    lines = [{"id": f"q{n}", "question": f"How much is {n} and one?{odd}\nThink.", "answer": f"{7000 + n}"} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def page_of(tmp_path: Path, judge: Judge, dataset: Path, texts: Any = None, **settings: Any) -> str:
    ties = {} if settings.get("adaptation_method") == "none" else {"ties": "first"}
    config = config_for(tmp_path / "run", dataset=str(dataset), answer_kind="number", **ties, **settings)
    attempt(config, StandIn(texts=texts) if texts else StandIn(), judge, problems_for(config))
    report_run(tmp_path / "run")
    return (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("mode", [{}, {"adaptation_method": "ttrl", "steps": None, "epochs": 1}, {"adaptation_method": "none"}])
def test_a_question_its_label_and_what_each_side_answered(mode: dict[str, Any], tmp_path: Path, judge: Judge) -> None:
    text = page_of(tmp_path, judge, rows(tmp_path / "sums.jsonl"), **mode)
    cards = re.findall(r"<article>.*?</article>", text, re.DOTALL)
    assert len(cards) == 3
    for number, line in enumerate(results(tmp_path / "run").splitlines()):
        record, card = json.loads(line), unescape(cards[number])
        assert f"How much is {number} and one?\nThink." in card and f"<dt>label</dt><dd>{7000 + number}</dd>" in card
        for name, label in (("base", "base"), ("vote_same_tokens", "vote (same tokens)"), ("adapted", "adapted")):
            if name in record["polls"] and record["polls"][name]["answer"] is not None:
                assert f"<dt>{label}</dt><dd>{record['polls'][name]['answer']} " in card
        sides = 2 if "adapted" in record["polls"] else 1
        assert (
            card.count("<h4>") == SAMPLES * sides and card.count("The answer is") + card.count("I would rather not say.") >= SAMPLES * sides
        )
        assert '<span class="lost">wrong</span>' in card and "right</span>" not in card, "7000 is nobody's answer"
        assert f"base, sample {SAMPLES} of 4" in card


def test_verdicts_of_samples_and_sides(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return ("The answer is 7000." if answer else "I do not know."), "stop"

    text = page_of(tmp_path, judge, rows(tmp_path / "sums.jsonl", 1), texts, adaptation_method="none", val_samples=8)
    assert re.search(r'<dt>base</dt><dd>7000 <span class="won">right</span> <small class="soft">[1-8] of 8 samples</small>', text)
    said = re.findall(r"<h4>base, sample (\d) of 8: (?:7000 )?<span class=\"\w+\">([\w ]+)</span>", text)
    assert [number for number, _ in said] == ["1", "2", "3"] and {verdict for _, verdict in said} <= {"right", "no answer"}


def test_what_others_wrote_cannot_leave_its_place(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"</pre></details>{ATTACK} The answer is {answer}", "stop"

    text = page_of(tmp_path, judge, rows(tmp_path / "sums.jsonl", odd=ATTACK), texts)
    assert "<script" not in text and "\u202e" not in text
    assert text.count("<pre>") == text.count("</pre>") and "&lt;/pre&gt;&lt;/details&gt;&lt;script&gt;" in text


def test_a_long_text_keeps_its_end(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"It begins. {'word ' * 5000} The answer is {answer}", "stop"

    text = page_of(tmp_path, judge, rows(tmp_path / "sums.jsonl", 1), texts)
    assert "It begins." in text and "characters …]" in text and re.search(r"The answer is \d</pre>", text)
    assert len(text) < 60_000


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_questions_that_their_authors_withhold_are_not_shown(gone: bool, tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"You ask how much it is. The answer is {answer}", "stop"

    file = rows(tmp_path / "my-gpqa.jsonl")
    text = page_of(tmp_path, judge, file, texts)
    if gone:
        file.unlink()
        report_run(tmp_path / "run")
        text = (tmp_path / "run" / "report.html").read_text()
    assert "How much" not in text and "You ask" not in text and "7001" not in text
    assert WITHHELD in unescape(text) and text.count("<article>") == 3, "what was elected is the run's own"


def test_a_data_set_that_is_gone_takes_its_questions_along_and_nothing_else(tmp_path: Path, judge: Judge) -> None:
    file = rows(tmp_path / "sums.jsonl")
    page_of(tmp_path, judge, file)
    file.unlink()
    report = report_run(tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text()
    assert "no labels:" in report.table and "How much" not in text and "<dt>label</dt>" not in text
    assert "The data set is not where it was: questions and labels are not shown." in text
    assert text.count("<h4>") == 2 * SAMPLES * 3, "the samples are the run's own"


def test_rollouts_that_are_gone_take_only_the_samples_along(tmp_path: Path, judge: Judge) -> None:
    page_of(tmp_path, judge, rows(tmp_path / "sums.jsonl"))
    shutil.rmtree(tmp_path / "run" / "rollouts")
    report_run(tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text()
    assert "How much" in text and "<details>" not in text


def test_labels_enter_the_run_folder_with_the_report(tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", dataset=str(rows(tmp_path / "sums.jsonl")), answer_kind="number", ties="first")
    attempt(config, StandIn(), judge, problems_for(config))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(b"7001" in path.read_bytes() for path in files)
    assert json.loads((tmp_path / "run" / CONFIG).read_text())["dataset_revision"] is None
