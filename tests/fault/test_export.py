"""`export`: tables, logs of inspect_ai and the hub, read back and compared with the run's summary."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from arc_stand_in import arc_attempt, arc_config
from stand_in import Faults, StandIn
from test_arc_runs import two_tests
from test_loaded_run import done, folder, sums

import sttrl
from sttrl.cli import main, parse_run
from sttrl.errors import StepError
from sttrl.export.formats import FORMATS
from sttrl.export.published import WITHHELD, command_of
from sttrl.library.loaded_run import LoadedRun
from sttrl.library.tables import SAMPLE_COLUMNS, problem_columns
from sttrl.questions.answers import Judge
from sttrl.report.runs import report_run
from sttrl.report.tables import metric_cell

__all__ = ["folder", "sums"]

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tests" / "golden" / "inspect_log.schema.json"
LABEL = 582736190
"""Digits that are in no seed and no log-prob by chance."""
PAGE = (ROOT / "docs" / "export.md").read_text()
Said = pytest.CaptureFixture[str]


def exported(folder: Path, capsys: Said, *arguments: str) -> list[Path]:
    """Run the command, and return the files that it names."""
    capsys.readouterr()
    assert main(["export", str(folder), *arguments]) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines() if Path(line).is_file()]


def complaint(capsys: Said, *arguments: str, code: int = 2) -> str:
    """Run the command, and return the one line that it ends on."""
    capsys.readouterr()
    assert main(["export", *arguments]) == code
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and len(said.err.splitlines()) == 1 and not said.out
    return said.err


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def checked(path: Path) -> dict[str, Any]:
    """A log that has nothing but what inspect_ai's schema knows, read by inspect_ai itself where that is installed."""
    from jsonschema import Draft202012Validator

    schema, log = json.loads(SCHEMA.read_text()), json.loads(path.read_text(encoding="utf-8"))
    for kind in schema["components"]["schemas"].values():
        if "properties" in kind:
            kind["additionalProperties"] = False
    Draft202012Validator(schema).validate(log)
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        return dict(log)
    assert len(read_eval_log(str(path)).samples or ()) == len(log["samples"])
    return dict(log)


def score_of(log: dict[str, Any], name: str) -> float:
    score = next(score for score in log["results"]["scores"] if score["name"] == name)
    (metric,) = score["metrics"].values()
    return float(metric["value"])


def with_adapters(folder: Path, names: list[str], base: str = "/home/me/cache/base") -> Path:
    """Give a run adapters as PEFT writes them, and as the engine does: with the folder that it loaded the base from."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    for name in names:
        place = folder / "adapters" / name
        place.mkdir(parents=True, exist_ok=True)
        LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], base_model_name_or_path=base).save_pretrained(str(place))
        save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 3)}, place / "adapter_model.safetensors")
    return folder


def test_csv_has_the_numbers_of_the_summary(folder: Path, capsys: Said) -> None:
    summary = report_run(folder).summary
    problems, samples = map(read_csv, exported(folder, capsys, "--to", "csv"))
    assert sorted(path.name for path in (folder / "export" / "csv").iterdir()) == ["problems.csv", "samples.csv"]
    for name in ("base", "vote_same_tokens", "confidence_same_tokens", "adapted"):
        for metric in ("greedy", "mean@k", "maj@k", "pass@k"):
            values = [float(row[f"{name}/{metric}"]) for row in problems if row[f"{name}/{metric}"]]
            assert (fmean(values) if values else None) == pytest.approx(summary[name][metric])
    assert sum(int(row["tokens/trained"]) for row in problems) == summary["tokens"]["trained"]
    assert [row["question"] for row in problems] == [f"How much is {n} and none?" for n in range(4)]
    assert [row["right"] == "true" for row in problems] == [row["answer"] == row["label"] for row in problems]
    adapted = [row for row in samples if row["evaluation"] == "adapted" and row["greedy"] == "false"]
    assert fmean(row["right"] == "true" for row in adapted) == pytest.approx(summary["adapted"]["mean@k"])
    assert all(row["text"] and "token_ids" not in row and (row["reward"] == "") == (row["step"] == "") for row in samples)


def test_parquet_has_the_same_and_token_ids(folder: Path, capsys: Said, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    run = sttrl.load_run(folder)
    files = exported(folder, capsys, "--to", "parquet", "--out", str(tmp_path / "out"))
    assert files == [tmp_path / "out" / "problems.parquet", tmp_path / "out" / "samples.parquet"]
    problems, samples = (parquet.read_table(path) for path in files)
    assert problems.column_names == list(problem_columns(run.problems)) and samples.column_names == list(SAMPLE_COLUMNS)
    assert fmean(problems["adapted/mean@k"].to_pylist()) == pytest.approx(run.summary["adapted"]["mean@k"])
    assert problems["base/right"].to_pylist() == [problem.base.right for problem in run if problem.base]
    first = run.problems[0].samples
    assert samples["token_ids"].to_pylist()[: len(first)] == [list(sample.tokens) for sample in first]
    assert samples["step"].to_pylist()[: len(first)] == [sample.step for sample in first]
    frame = run.dataframe("samples")
    assert list(frame["text"]) == samples["text"].to_pylist()


def test_logs_of_inspect_have_the_numbers_of_the_summary(folder: Path, capsys: Said) -> None:
    summary = report_run(folder).summary
    files = exported(folder, capsys, "--to", "inspect")
    assert [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\+00-00_run-(\w+)\.json", path.name)[1] for path in files] == ["base", "adapted"]  # type: ignore[index]
    for name, log in zip(("base", "adapted"), map(checked, files), strict=True):
        right = [sample["scores"]["right"]["value"] == "C" for sample in log["samples"]]
        assert fmean(right) == pytest.approx(summary[name]["mean@k"]) == score_of(log, "right") and len(right) == 16
        for metric in ("greedy", "maj@k", "pass@k"):
            assert score_of(log, metric) == pytest.approx(summary[name][metric])
            reduced = next(each for each in log["reductions"] if each["scorer"] == metric)
            assert fmean(each["value"] for each in reduced["samples"]) == pytest.approx(summary[name][metric])
        assert log["status"] == "success" and log["eval"]["config"] == {"epochs": 4}
        assert [sample["epoch"] for sample in log["samples"]] == [1, 2, 3, 4] * 4
        assert {sample["target"] for sample in log["samples"]} == {"0", "1", "2", "3"}
        usage = log["stats"]["model_usage"]["builtin/SmolLM2-135M-Instruct"]
        assert usage["output_tokens"] > sum(sample["output"]["usage"]["output_tokens"] for sample in log["samples"]) > 0, "and the greedy"
    again = exported(folder, capsys, "--to", "inspect")
    assert again == files, "an unchanged run gives the same files"


def test_a_question_that_failed_counts_as_the_base_in_the_log(tmp_path: Path, judge: Judge, sums: Path, capsys: Said) -> None:
    done(tmp_path / "run", judge, sums, StandIn(Faults({("update", 1): StepError("No.")})), parallel_problems=1)
    log = checked(exported(tmp_path / "run", capsys, "--to", "inspect")[1])
    assert fmean(sample["scores"]["right"]["value"] == "C" for sample in log["samples"]) == pytest.approx(score_of(log, "right"))
    assert {(sample["metadata"]["status"], sample["metadata"]["evaluation"]) for sample in log["samples"]} == {
        ("failed", "base"), ("done", "adapted"),
    }  # fmt: skip


def test_arc_tasks_in_every_format(tmp_path: Path, capsys: Said) -> None:
    data = two_tests(tmp_path / "data")
    report = arc_attempt(arc_config(tmp_path / "run", dataset=str(data / "own_challenges.json")))
    problems = read_csv(exported(tmp_path / "run", capsys, "--to", "csv")[0])
    total = sum(float(row["weight"]) for row in problems)
    value = sum(float(row["adapted/kaggle"]) * float(row["weight"]) for row in problems) / total
    assert value == pytest.approx(report.summary["adapted"]["kaggle"])
    for name, path in zip(("base", "adapted"), exported(tmp_path / "run", capsys, "--to", "inspect"), strict=True):
        log = checked(path)
        assert {metric: score_of(log, metric) for metric in ("kaggle", "oracle")} == {
            metric: pytest.approx(report.summary[name][metric]) for metric in ("kaggle", "oracle")
        }
        assert [sample["id"] for sample in log["samples"]] == ["one", "two"] and log["status"] == "started"
        assert json.loads(log["samples"][1]["input"])["test"] == [{"input": [[2, 8]]}, {"input": [[9]]}]
        assert log["samples"][1]["target"] == "0:2288/2288\n1:99/99"
    assert len(exported(tmp_path / "run", capsys, "--to", "parquet")) == 2


def uploaded(online: Any) -> dict[str, bytes]:
    return {f"{repo}/{name}": content for repo, kept in online.repos.items() for name, content in kept["branches"]["main"].items()}


def pushed(folder: Path, capsys: Said, *arguments: str) -> str:
    capsys.readouterr()
    assert main(["export", str(folder), "--to", "hub", "--repo_id", "me/run", "--token", "hf_right", *arguments]) == 0
    return capsys.readouterr().out


def test_the_hub_gets_adapters_predictions_and_cards(folder: Path, capsys: Said, online: Any, tmp_path: Path) -> None:
    from peft import PeftConfig
    from safetensors import safe_open

    said = pushed(with_adapters(folder, ["q0", "q2"]), capsys)
    files = uploaded(online)
    assert sorted(files) == [
        "datasets/me/run/README.md", "datasets/me/run/data/problems.parquet", "datasets/me/run/data/samples.parquet",
        "me/run/README.md", "me/run/adapters/q0/adapter_config.json", "me/run/adapters/q0/adapter_model.safetensors",
        "me/run/adapters/q2/adapter_config.json", "me/run/adapters/q2/adapter_model.safetensors",
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in said.splitlines()] == ["predictions", "adapters"] and "5 files" in said
    assert online.repos["me/run"]["visibility"] == online.repos["datasets/me/run"]["visibility"] == "private"
    for name, content in files.items():
        assert str(tmp_path).encode() not in content and b"/home/me" not in content, name
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(files[f"me/run/adapters/q2/{name}"])
    assert PeftConfig.from_pretrained(str(tmp_path)).base_model_name_or_path == "builtin/SmolLM2-135M-Instruct"
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as opened:
        assert list(opened.keys()) == ["base_model.model.x.lora_A.weight"]


def test_the_cards_have_the_table_of_the_run(folder: Path, capsys: Said, online: Any) -> None:
    import pyarrow.parquet as parquet

    pushed(with_adapters(folder, ["q0"]), capsys)
    summary, files = report_run(folder).summary, uploaded(online)
    for name in ("me/run/README.md", "datasets/me/run/README.md"):
        card = files[name].decode()
        for label, key in (("base", "base"), ("vote (same tokens)", "vote_same_tokens"), ("adapted", "adapted"), ("gain", "gain")):
            cells = [metric_cell(summary, key, metric) for metric in ("greedy", "mean@k", "maj@k", "pass@k")]
            assert f"| {label} | {' | '.join(cells)} |" in card
        assert "|  | greedy | mean@4 | maj@4 | pass@4 |" in card and "python main.py --dataset sums.jsonl" in card
    head = yaml.safe_load(files["datasets/me/run/README.md"].decode().split("---")[1])
    assert [each["config_name"] for each in head["configs"]] == ["problems", "samples"]
    for each in head["configs"]:
        table = parquet.read_table(io.BytesIO(files[f"datasets/me/run/{each['data_files']}"]))
        assert table.num_rows == (4 if each["config_name"] == "problems" else sum(len(p.samples) for p in sttrl.load_run(folder)))
    assert yaml.safe_load(files["me/run/README.md"].decode().split("---")[1])["library_name"] == "peft"


def test_one_adapter_for_all_is_the_repository_s_own(tmp_path: Path, judge: Judge, sums: Path, capsys: Said, online: Any) -> None:
    done(tmp_path / "run", judge, sums, adaptation_method="ttrl", steps=None, epochs=1, train_batch_size=2, model="me/base")
    pushed(with_adapters(tmp_path / "run", ["all"]), capsys)
    files = online.repos["me/run"]["branches"]["main"]
    assert sorted(files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert 'from_pretrained("me/base"), "me/run")' in files["README.md"].decode()
    assert yaml.safe_load(files["README.md"].decode().split("---")[1])["base_model"] == "me/base"


def test_a_run_without_adapters_pushes_its_predictions(folder: Path, capsys: Said, online: Any) -> None:
    said = pushed(folder, capsys, "--path_in_repo", "v1", "--branch", "b", "--no_private", "--commit_message", "Mine")
    assert list(online.repos) == ["datasets/me/run"] and "the run has kept none in PEFT's layout" in said
    repo = online.repos["datasets/me/run"]
    assert repo["visibility"] == "public" and repo["messages"] == ["Mine"] and repo["branches"]["main"] == {}
    assert "data_files: v1/data/samples.parquet" in repo["branches"]["b"]["v1/README.md"].decode()


def test_what_authors_withhold_leaves_in_no_format(tmp_path: Path, judge: Judge, capsys: Said, online: Any) -> None:
    import pyarrow.parquet as parquet

    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"You ask how much it is. The answer is {LABEL + answer}", "stop"

    lines = [{"id": f"q{n}", "question": f"How much is {n} and a lot?", "answer": f"{LABEL + n}"} for n in range(3)]
    (tmp_path / "my-gpqa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = done(tmp_path / "run", judge, tmp_path / "my-gpqa.jsonl", StandIn(texts=texts))
    with_adapters(folder, ["q0"])
    assert any(s.right for problem in sttrl.load_run(folder) for s in problem.samples), "an answer is a label"
    (tmp_path / "files").mkdir()
    for name in FORMATS:
        capsys.readouterr()
        assert main(["export", str(folder), "--to", name, "--out", str(tmp_path / "files" / name)]) == 0
        assert WITHHELD in capsys.readouterr().out
    assert WITHHELD in pushed(folder, capsys)
    for name, content in uploaded(online).items():
        place = tmp_path / "files" / "hub" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    files = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert len(files) == 2 + 2 + 2 + 6
    for path in files:
        shown = json.dumps(parquet.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text("utf-8", "replace")
        for secret in ("How much", "You ask", *(str(LABEL + n) for n in range(3))):
            assert secret not in shown, (path, secret)
        if path.name == "samples.parquet":
            assert parquet.read_table(path)["token_ids"].null_count == parquet.read_table(path).num_rows > 0
    summary = report_run(folder).summary
    assert summary["adapted"]["pass@k"] > 0
    problems = read_csv(tmp_path / "files" / "csv" / "problems.csv")
    assert fmean(float(row["adapted/mean@k"]) for row in problems) == pytest.approx(summary["adapted"]["mean@k"]), "scores are there"
    log = checked(next((tmp_path / "files" / "inspect").glob("*adapted.json")))
    assert score_of(log, "right") == pytest.approx(summary["adapted"]["mean@k"]) and log["samples"][0]["input"] == WITHHELD


def test_odd_texts_of_a_model_are_kept_as_they_are(tmp_path: Path, judge: Judge, sums: Path, capsys: Said) -> None:
    odd = 'a "quote", a\nline, \x00 \u2028 and \ud800'

    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"{odd} The answer is {answer}", "stop"

    folder = done(tmp_path / "run", judge, sums, StandIn(texts=texts))
    shown = odd.replace("\ud800", "\\ud800")
    assert all(row["text"].startswith(shown) for row in read_csv(exported(folder, capsys, "--to", "csv")[1]))
    log = checked(exported(folder, capsys, "--to", "inspect")[0])
    assert all(sample["output"]["completion"].startswith(shown) for sample in log["samples"])
    assert len(exported(folder, capsys, "--to", "parquet")) == 2


def test_the_command_of_a_card_does_the_same_run(folder: Path) -> None:
    run = sttrl.load_run(folder)
    config = parse_run(shlex.split(command_of(run))[2:])
    for name in ("n_votes", "steps", "ties", "val_samples", "max_response_tokens", "limit", "answer_kind", "model"):
        assert config.setting(name) == run.config[name], name
    changed = {**run.config, "ids": ["a b", "c"], "kl_coef": 0.5, "data_dir": "/home/me", "dataset": "/home/me/mine.jsonl", "greedy": False}
    odd = LoadedRun(**{**vars(run), "config": changed})
    words = shlex.split(command_of(odd))[2:]
    assert "/home/me" not in " ".join(words) and parse_run(words).data.ids == ("a b", "c") and parse_run(words).data.dataset == "mine.jsonl"


def test_a_wrong_export_is_one_line(folder: Path, capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--to hub needs --repo_id. Give ORGANISATION/NAME." in complaint(capsys, str(folder), "--to", "hub")
    assert "--branch does nothing with --to csv." in complaint(capsys, str(folder), "--to", "csv", "--branch", "b")
    assert "--out does nothing with --to hub." in complaint(capsys, str(folder), "--to", "hub", "--repo_id", "a/b", "--out", "x")
    assert "is not a run folder" in complaint(capsys, str(tmp_path), "--to", "csv")
    assert "'xml'" in complaint(capsys, str(folder), "--to", "xml")
    (tmp_path / "file").write_text("x")
    assert f"Cannot write {tmp_path}/file/problems.csv: " in complaint(capsys, str(folder), "--to", "csv", "--out", str(tmp_path / "file"))
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    assert not hidden, "nothing half written is left"
    import sys

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        assert "need the package pyarrow, which is not installed. pip install pyarrow" in complaint(capsys, str(folder), "--to", "parquet")
    (folder / "rollouts" / "q1.jsonl").unlink()
    said = complaint(capsys, str(folder), "--to", "inspect")
    assert "q1.jsonl has 0 of 4 responses, which the log lists." in said and not list((folder / "export" / "inspect").iterdir())
    assert len(read_csv(exported(folder, capsys, "--to", "csv")[0])) == 4


def test_the_page_explains_every_format_and_column(folder: Path) -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Columns")[0], re.MULTILINE)) == {*FORMATS, "hub"}
    columns = PAGE.split("## Columns")[1]
    named = {name.rpartition("/")[2] if "<" in name else name for name in re.findall(r"`([^`]+)`", columns)}
    run = sttrl.load_run(folder)
    metrics = {metric for problem in run for row in problem.scores.values() for metric in row}
    own = {name for name in problem_columns(run.problems) if name.partition("/")[0] not in ("base", "vote_same_tokens", "adapted")}
    own = {name for name in own if name.rpartition("/")[2] not in metrics}
    parts = {"k", "majority_ratio", "margin", "tokens", "answer", "right"}
    assert not (own | set(SAMPLE_COLUMNS) | parts) - named


def test_a_fine_tuning_has_a_log_of_losses(tmp_path: Path, capsys: Said) -> None:
    from test_finetune import finetuning

    report = arc_attempt(finetuning(tmp_path / "run"))
    for name, path in zip(("base", "adapted"), exported(tmp_path / "run", capsys, "--to", "inspect"), strict=True):
        log = checked(path)
        assert score_of(log, "loss") == pytest.approx(report.summary[name]["loss"])
        assert fmean(sample["scores"]["loss"]["value"] for sample in log["samples"]) == pytest.approx(report.summary[name]["loss"])
    assert len(exported(tmp_path / "run", capsys, "--to", "csv")) == 2


def test_a_run_that_has_finished_nothing_yet_has_empty_tables(folder: Path, capsys: Said, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text(lines[0])
    assert [read_csv(path) for path in exported(folder, capsys, "--to", "csv")] == [[], []]
    assert [parquet.read_table(path).num_rows for path in exported(folder, capsys, "--to", "parquet")] == [0, 0]
    (path,) = exported(folder, capsys, "--to", "inspect")
    log = checked(path)
    assert log["samples"] == [] and log["results"]["scores"] == [] and log["status"] == "started"
    assert sttrl.load_run(folder).dataframe().empty
