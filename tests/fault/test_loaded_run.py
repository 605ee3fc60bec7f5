"""`sttrl.load_run` on run folders as runs leave them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from arc_stand_in import arc_attempt, arc_config
from stand_in import Faults, StandIn, attempt, config_for, problems_for
from test_arc_runs import two_tests
from test_report_of_a_run import rows

import sttrl
from sttrl.errors import JournalError, StepError, UsageError
from sttrl.ledger.files import write_json
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import Journal
from sttrl.ledger.rollouts import rollouts_file
from sttrl.questions.answers import Judge
from sttrl.report.runs import report_run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "library.md"


def done(folder: Path, judge: Judge, dataset: Path, engine: StandIn | None = None, **settings: Any) -> Path:
    """A finished run on a data set of sums, with the line that ends an attempt."""
    config = config_for(folder, dataset=str(dataset), answer_kind="number", **({"ties": "first"} | settings))
    attempt(config, engine or StandIn(), judge, problems_for(config))
    with Journal(folder) as journal:
        journal.append("attempt", attempt=1, seconds={"total": 9.0, "start_up": 1.0})
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A data set whose labels are small numbers, of which the stand-in answers some rightly."""
    path = tmp_path / "sums.jsonl"
    lines = [{"id": f"q{n}", "question": f"How much is {n} and none?", "answer": str(n)} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def folder(tmp_path: Path, judge: Judge, sums: Path) -> Path:
    return done(tmp_path / "run", judge, sums)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said_by(source: str) -> str:
    """What a Python program prints."""
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_sttrl_loads_nothing_else_and_the_surface_is_frozen() -> None:
    source = "import sys; before = set(sys.modules); import sttrl; print(sorted(m for m in set(sys.modules) - before if '.' not in m))"
    assert set(json.loads(said_by(source).replace("'", '"'))) <= {"sttrl", "typing", "importlib", "warnings", "_typing", "collections"}
    heavy = "print([m for m in ('torch', 'ray', 'vllm', 'verl', 'pandas', 'datasets') if m in sys.modules])"
    assert said_by(f"import sys, sttrl; sttrl.load_run, sttrl.Session; {heavy}").strip() == "[]"
    surface = ["Answer", "AsyncSession", "LoadedRun", "Session", "TaskAnswer", "__version__", "load_run"]
    assert sttrl.__all__ == surface and set(surface) <= set(dir(sttrl))
    with pytest.raises(AttributeError, match="has no attribute 'load_runs'"):
        _ = sttrl.load_runs


def test_a_run_is_read_and_nothing_in_it_is_changed(folder: Path) -> None:
    before = contents(folder)
    run = sttrl.load_run(str(folder))
    assert contents(folder) == before, "no grades and no report appear"
    assert run.summary == report_run(folder).summary == json.loads((folder / "summary.json").read_text())
    assert run.status == "finished" and run.path == folder and run.remark is None and not run.withheld
    assert run.config["n_votes"] == 12 and [problem.id for problem in run] == ["q0", "q1", "q2", "q3"] and len(run) == 4
    with pytest.raises(KeyError, match="q9"):
        _ = run["q9"]


def test_a_problem_has_its_texts_evaluations_votes_and_scores(folder: Path) -> None:
    run = sttrl.load_run(folder)
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for number, problem in enumerate(run):
        assert problem.question == f"How much is {number} and none?" and problem.label == str(number)
        assert problem.status == "done" and problem.right == (problem.answer == problem.label)
        steps = [line for line in journal if line["kind"] == "step" and line["id"] == problem.id]
        assert [vote.answer for vote in problem.votes] == [line["election"]["answer"] for line in steps]
        assert [step.rewards for step in problem.steps] == [tuple(line["reward_G"]) for line in steps]
        assert all(math.isclose(sum(vote.share.values()), 1) for vote in problem.votes)
        assert problem.steps[0].metrics["vote/majority_ratio"] == problem.votes[0].majority_ratio
        assert problem.base and problem.base.k == 4 and problem.adapted and problem.adapted.vote == problem.election
        assert problem.adapter == folder / "adapters" / problem.id and problem.tokens_sampled > 0 and problem.seconds["sample"] >= 0
    assert run.summary["adapted"]["maj@k"] == fmean(problem.scores["adapted"]["maj@k"] or 0 for problem in run)


def test_samples_have_answers_verdicts_and_rewards(folder: Path) -> None:
    right = 0
    for problem in sttrl.load_run(folder):
        samples = problem.samples
        for name in ("base", "adapted"):
            own = [s for s in samples if s.evaluation == name and not s.greedy]
            assert [s.number for s in own] == [0, 1, 2, 3] and all(s.reward is None and s.step is None for s in own)
            assert fmean(bool(s.right) for s in own) == problem.scores[name]["mean@k"]
            assert all(s.right == (s.answer == problem.label) for s in own)
            right += sum(bool(s.right) for s in own)
        first = [s for s in samples if s.step == 0]
        assert [s.reward for s in first] == list(problem.steps[0].rewards) and len(first) == 12
        assert all(s.text and len(s.tokens) == len(s.logprobs) > 0 and (s.answer is None) == (s.invalid is not None) for s in samples)
        assert problem.samples == samples
    assert right > 0, "some answers are right"


def test_data_frames_agree_with_the_summary(folder: Path) -> None:
    run = sttrl.load_run(folder)
    frame = run.dataframe()
    assert list(frame["id"]) == ["q0", "q1", "q2", "q3"]
    for name in ("base", "vote_same_tokens", "adapted"):
        for metric in ("greedy", "mean@k", "maj@k", "pass@k"):
            value = run.summary[name][metric]
            assert frame[f"{name}/{metric}"].isna().all() if value is None else math.isclose(frame[f"{name}/{metric}"].mean(), value)
    assert frame["tokens/sampled"].sum() == run.summary["tokens"]["sampled"]
    samples = run.dataframe("samples")
    assert len(samples) == sum(len(problem.samples) for problem in run)
    polled = samples[(samples["evaluation"] == "base") & ~samples["greedy"]]
    assert math.isclose(polled["right"].mean(), run.summary["base"]["mean@k"])
    assert samples["step"].dtype == "Int64" and samples["reward"].notna().sum() == samples["step"].notna().sum()


def test_a_frame_without_pandas_or_of_other_rows_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sttrl.load_run(folder)
    with pytest.raises(UsageError, match=r"not of 'steps'\. Give 'problems' or 'samples'\."):
        run.dataframe("steps")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"needs the package pandas, which is not installed\. pip install pandas"):
        run.dataframe()


def test_a_run_that_goes_on_is_unfinished(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if json.loads(line)["kind"] == "question"]
    (folder / "journal.jsonl").write_text("".join(lines[: ends[1] + 1]) + '{"v": 3, "kin')
    run = sttrl.load_run(folder)
    assert run.status == "unfinished" and [problem.id for problem in run] == ["q0", "q1"] and run.summary["questions"]["total"] == 2


def test_a_question_that_failed_says_why_and_counts_as_the_base(tmp_path: Path, judge: Judge, sums: Path) -> None:
    done(tmp_path / "run", judge, sums, StandIn(Faults({("update", 1): StepError("No.")})), parallel_problems=1)
    run = sttrl.load_run(tmp_path / "run")
    failed = run.problems[0]
    assert failed.status == "failed" and failed.error and "No." in failed.error and failed.adapted is None
    assert failed.scores["adapted"] == failed.scores["base"] and run.summary["questions"]["failed"] == 1


def test_one_policy_for_all_questions_has_one_adapter(tmp_path: Path, judge: Judge, sums: Path) -> None:
    done(tmp_path / "run", judge, sums, adaptation_method="ttrl", steps=None, epochs=2, train_batch_size=2)
    run = sttrl.load_run(tmp_path / "run")
    assert {problem.adapter for problem in run} == {tmp_path / "run" / "adapters" / "all"}
    assert all(len(problem.votes) == 2 and {s.evaluation for s in problem.samples} >= {"base", "adapted"} for problem in run)


def test_what_authors_withhold_is_not_shown(tmp_path: Path, judge: Judge) -> None:
    file = rows(tmp_path / "my-gpqa.jsonl")
    done(tmp_path / "run", judge, file)
    run = sttrl.load_run(tmp_path / "run")
    assert run.withheld and all(problem.question is None and problem.label is None for problem in run)
    assert run.summary["base"]["mean@k"] == 0, "it is graded all the same"
    file.unlink()
    assert sttrl.load_run(tmp_path / "run").withheld


def test_a_data_set_that_is_gone_is_a_remark(folder: Path, sums: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    sums.unlink()
    run = sttrl.load_run(folder)
    assert run.remark and "sums.jsonl" in run.remark and run.summary["base"] is None
    assert run.problems[0].question is None and run.problems[0].right is None and run.problems[0].scores == {}
    assert run.problems[0].samples[0].right is None and "base/mean@k" not in run.dataframe()


def test_arc_tasks(tmp_path: Path) -> None:
    data = two_tests(tmp_path / "data")
    folder = tmp_path / "run"
    report = arc_attempt(arc_config(folder, dataset=str(data / "own_challenges.json")))
    run = sttrl.load_run(folder)
    assert run.summary == report.summary and [problem.id for problem in run] == ["one", "two"]
    task = json.loads(run["two"].question or "")
    assert len(task["train"]) == 2 and task["test"] == [{"input": [[2, 8]]}, {"input": [[9]]}]
    assert run["two"].label == "0:2288/2288\n1:99/99" and run["two"].weight == 2
    frame = run.dataframe()
    for name in ("base", "adapted"):
        weighted = (frame[f"{name}/kaggle"] * frame["weight"]).sum() / frame["weight"].sum()
        assert math.isclose(weighted, run.summary[name]["kaggle"])
    assert all(s.view is not None and s.test in (0, 1) and s.answer is None and s.right is None for s in run["two"].samples)
    assert run["one"].adapted and run["one"].adapted.vote is None and run["one"].election is None


async def test_a_notebook_with_an_event_loop_of_its_own_can_load_a_run(folder: Path) -> None:
    assert len(sttrl.load_run(folder)) == 4


def test_what_is_no_run_is_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(
        JournalError, match=r"nowhere is not a run folder: it has no readable config\.json\. Give a folder under outputs/\."
    ):
        sttrl.load_run(tmp_path / "nowhere")
    write_json(tmp_path / "trm" / CONFIG, {"kind": "trm"})
    with pytest.raises(JournalError, match="is a training of the recursive model"):
        sttrl.load_run(tmp_path / "trm")
    file = rollouts_file(folder, "q1")
    file.write_text(file.read_text().replace('"text"', '"txt"', 1))
    with pytest.raises(JournalError, match=r"q1\.jsonl, line 1 is damaged"):
        _ = sttrl.load_run(folder)["q1"].samples
    file.unlink()
    assert sttrl.load_run(folder)["q1"].samples == ()


def test_the_examples_of_the_page_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    section = PAGE.read_text().split("## Read a run folder\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (folder.parent / "outputs").mkdir()
    folder.rename(folder.parent / "outputs" / "demo")
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert len(blocks) >= 3 and "How much is 0 and none?" in said and names["run"].status == "finished"


def test_a_fine_tuning_has_its_steps_and_the_loss_of_held_out_tasks(tmp_path: Path) -> None:
    from test_finetune import finetuning

    report = arc_attempt(finetuning(tmp_path / "run"))
    run = sttrl.load_run(tmp_path / "run")
    assert [step.number for step in run.steps] == list(range(6)) and run.summary == report.summary
    assert run.dataframe()["adapted/loss"].mean() == pytest.approx(run.summary["adapted"]["loss"])
    assert all(problem.label is None and problem.right is None and problem.samples == () for problem in run)
    assert run.dataframe("samples").empty
