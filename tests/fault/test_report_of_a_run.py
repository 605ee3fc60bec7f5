"""report.html of a real run folder: what was asked, the labels, what each side answered, and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import Held, held
from stand_in import StandIn, attempt, config_for, problems_for, results

from sttrl.ledger.folder import CONFIG
from sttrl.questions.answers import Judge
from sttrl.report.runs import report_run
from sttrl.report.texts import MOVED, WITHHELD
from sttrl.report.view.details import LOST_ROLLOUTS, NO_ROLLOUTS

ATTACK = "<script>alert(1)</script>\u202e"


def rows(path: Path, count: int = 3, odd: str = "") -> Path:
    """A data set of sums whose labels stand nowhere else."""
    lines = [{"id": f"q{n}", "question": f"How much is {n} and one?{odd}\nThink.", "answer": f"{7000 + n}"} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def shown_of(tmp_path: Path, judge: Judge, dataset: Path, texts: Any = None, **settings: Any) -> Held:
    ties = {} if settings.get("adaptation_method") == "none" else {"ties": "first"}
    config = config_for(tmp_path / "run", dataset=str(dataset), answer_kind="number", **ties, **settings)
    attempt(config, StandIn(texts=texts) if texts else StandIn(), judge, problems_for(config))
    report_run(tmp_path / "run")
    return again(tmp_path)


def again(tmp_path: Path) -> Held:
    return held((tmp_path / "run" / "report.html").read_text())


@pytest.mark.parametrize("mode", [{}, {"adaptation_method": "ttrl", "steps": None, "epochs": 1}, {"adaptation_method": "none"}])
def test_a_question_its_label_and_what_each_side_answered(mode: dict[str, Any], tmp_path: Path, judge: Judge) -> None:
    shown = shown_of(tmp_path, judge, rows(tmp_path / "sums.jsonl"), **mode)
    for number, line in enumerate(results(tmp_path / "run").splitlines()):
        record, row, detail = json.loads(line), shown.runs[0]["questions"][number], shown.details[0][number]
        assert detail["text"] == row["text"] == f"How much is {number} and one?\nThink." and detail["label"] == f"{7000 + number}"
        for name, poll in record["polls"].items():
            if poll["answer"] is not None:
                assert row["said"][name] == {"answer": poll["answer"], "verdict": "wrong"}, "7000 is nobody's answer"
        groups = {group["name"]: group["samples"] for group in detail["groups"]}
        assert [len(groups[name]) for name in ("base", "adapted") if name in groups] == [5] * (1 + ("adapted" in record["polls"]))
        assert [vote["name"] for vote in detail["course"]][0] == "base" and len(detail["course"]) == len(record["steps"]) + len(
            record["polls"]
        )
        steps = [name for name in groups if name.startswith("step")]
        assert steps == ([f"step {n + 1}" for n in range(len(record["steps"]))] if not mode else []), "ttrl keeps no samples of its steps"


def test_samples_have_answer_verdict_reward_and_log_prob(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return ("The answer is 7000." if answer else "I do not know."), "stop"

    (detail,) = shown_of(tmp_path, judge, rows(tmp_path / "sums.jsonl", 1), texts, val_samples=8).details[0]
    assert detail["answers"] == [{"text": "7000", "verdict": "right"}]
    base = next(group["samples"] for group in detail["groups"] if group["name"] == "base")
    assert [sample.get("greedy", False) for sample in base] == [False] * 8 + [True]
    assert {(sample["answer"], sample.get("invalid"), sample["text"]) for sample in base} <= {
        (0, None, "The answer is 7000."), (None, "unparsable", "I do not know."),
    }  # fmt: skip
    assert all(sample["logprob"] < 0 and sample["tokens"] > 0 for sample in base)
    stepped = next(group["samples"] for group in detail["groups"] if group["name"] == "step 1")
    assert {(sample["answer"], sample["reward"]) for sample in stepped} <= {(0, 1.0), (None, 0.0)}
    vote = next(vote for vote in detail["course"] if vote["name"] == "step 1")
    assert vote["winner"] == 0 and vote["counts"][0][1] + vote["invalid"].get("unparsable", 0) == vote["samples"]


def test_what_others_wrote_stays_text(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"</script></details>{ATTACK} The answer is {answer}", "stop"

    shown = shown_of(tmp_path, judge, rows(tmp_path / "sums.jsonl", odd=ATTACK), texts)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page and "\u202e" not in page
    sample = shown.details[0][0]["groups"][0]["samples"][0]["text"]
    assert sample.startswith("</script></details><script>alert(1)</script>· The answer is"), "it is told from the page's own by its place"


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_questions_that_their_authors_withhold_are_not_shown(gone: bool, tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"You ask how much it is. The answer is {answer}", "stop"

    file = rows(tmp_path / "my-gpqa.jsonl")
    shown = shown_of(tmp_path, judge, file, texts)
    if gone:
        file.unlink()
        report_run(tmp_path / "run")
        shown = again(tmp_path)
    everything = json.dumps([shown.index, shown.runs, shown.details])
    assert "How much" not in everything and "You ask" not in everything and "7001" not in everything
    assert WITHHELD in shown.runs[0]["remarks"] and len(shown.runs[0]["questions"]) == 3, "what was elected is the run's own"


def test_a_data_set_that_is_gone_takes_its_questions_along_and_nothing_else(tmp_path: Path, judge: Judge) -> None:
    file = rows(tmp_path / "sums.jsonl")
    shown_of(tmp_path, judge, file)
    file.unlink()
    report = report_run(tmp_path / "run")
    shown = again(tmp_path)
    assert "no labels:" in report.table and MOVED in shown.runs[0]["remarks"]
    assert {(row["text"], row["label"]) for row in shown.runs[0]["questions"]} == {(None, None)}
    assert all(detail["groups"] and detail["label"] is None for detail in shown.details[0]), "the samples are the run's own"


def test_rollouts_that_are_gone_or_damaged_take_only_the_samples_along(tmp_path: Path, judge: Judge) -> None:
    shown_of(tmp_path, judge, rows(tmp_path / "sums.jsonl"))
    first, second, third = sorted((tmp_path / "run" / "rollouts").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes().replace(b'"text"', b'"other"', 1))
    third.write_bytes(b'{"poll": \n' + third.read_bytes())
    report_run(tmp_path / "run")
    details = again(tmp_path).details[0]
    assert [detail["groups"] for detail in details] == [[], [], []] and all(detail["text"].startswith("How much") for detail in details)
    assert [detail["remarks"] for detail in details] == [[NO_ROLLOUTS], [LOST_ROLLOUTS], [LOST_ROLLOUTS]]


def test_labels_enter_the_run_folder_with_the_report(tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", dataset=str(rows(tmp_path / "sums.jsonl")), answer_kind="number", ties="first")
    attempt(config, StandIn(), judge, problems_for(config))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(b"7001" in path.read_bytes() for path in files)
    assert json.loads((tmp_path / "run" / CONFIG).read_text())["dataset_revision"] is None
