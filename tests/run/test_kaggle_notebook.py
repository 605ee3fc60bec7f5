"""examples/arc/kaggle.ipynb: its cells, run in order in a Python of their own, leave a complete submission whatever happens."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sttrl.arc.submission import Submission, read_submission
from sttrl.cli import parse_run

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "arc" / "kaggle.ipynb"
CELLS = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
scope = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)
"""
NONE = (((0,),), ((0,),))
SMALL = "--ttt_rows 2 --views 2 --score_views 1 --search_requests 2 --limit 2"
STAND_IN = '''
"""A stand-in: `shrink` makes a folder; a run answers the first task, skips the last, and then does what the variable DO says."""
import json, os, pathlib, sys, time
flags = dict(zip(sys.argv, sys.argv[1:]))

def main():
    if sys.argv[1] == "shrink":
        pathlib.Path(flags["--out"]).mkdir(parents=True)
        pathlib.Path(flags["--out"], "config.json").write_text('{"vocab_size": 16}')
    elif sys.argv[1] == "report":
        print("the table")
    else:
        assert 60 <= float(flags["--time_limit"]) <= 3600 and "PYTHONPATH" not in os.environ
        folder = pathlib.Path(flags["--output_dir"], flags["--run_name"])
        folder.mkdir(parents=True)
        tasks = json.loads(pathlib.Path(flags["--dataset"]).read_text())
        attempts = {"attempt_1": [[0]], "attempt_2": [[0]]}
        made = {name: [dict(attempts) for _ in task["test"]] for name, task in tasks.items()}
        made[min(made)][0]["attempt_1"] = [[1, 2]]
        del made[max(made)]
        (folder / "submission.json").write_text(json.dumps(made))
        print("1/2 done", flush=True)
        if os.environ["DO"] == "break":
            while '"attempt_1": [[1, 2]]' not in pathlib.Path("submission.json").read_text():
                time.sleep(0.01)
            (folder / "submission.json").write_text("{")
            sys.exit(4)
        if os.environ["DO"] == "hang":
            time.sleep(300)
'''


def notebook() -> list[dict[str, Any]]:
    return list(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])


def started(folder: Path, **variables: str) -> subprocess.Popen[str]:
    """The notebook's cells, begun in a folder."""
    environment = {name: value for name, value in os.environ.items() if name == "STTRL_CACHE" or not name.startswith("STTRL_")}
    environment |= {"STTRL_SCRATCH": str(folder.parent), **variables}
    command = [sys.executable, "-c", CELLS, str(NOTEBOOK)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tasks(folder: Path, solutions: bool = False) -> Path:
    """Two tasks of arc-demo, as a contest names its files."""
    folder.mkdir()
    for kind in ("challenges", "solutions")[: 1 + solutions]:
        whole = json.loads((ROOT / f"sttrl/arc/demo/arc-demo_{kind}.json").read_text())
        (folder / f"arc-agi_test_{kind}.json").write_text(json.dumps({name: whole[name] for name in sorted(whole)[:2]}))
    return folder


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse with the stand-in."""
    root, out = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("packed") / "wheelhouse"
    for folder in ("sttrl", "requirements"):
        (root / folder).mkdir(parents=True)
    (root / "sttrl/__init__.py").write_text(STAND_IN)
    for name in ("README.md", "LICENSE", "requirements/cpu.txt", "requirements/weights.txt"):
        (root / name).touch()
    (root / "requirements/weights.txt").write_text("# No weights of builtin/Small.\n")
    text = (
        '[project]\nname = "sttrl"\nversion = "0.1.0"\n[project.scripts]\nsttrl = "sttrl:main"\n[tool.setuptools]\npackages = ["sttrl"]\n'
    )
    (root / "pyproject.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "requirements")
        script = importlib.import_module("wheelhouse")
        patch.setattr(script, "ROOT", root)
        assert script.main(["--out", str(out), "--model", "builtin/Small", "--no-index"]) == 0
    return out


def handed_in(folder: Path) -> Submission:
    return read_submission(folder / "submission.json")


def answered(submission: Submission) -> int:
    return sum(entry != NONE for inputs in submission.values() for entry in inputs)


def test_the_notebook_is_committed_without_outputs_and_with_the_demo_s_settings(tmp_path: Path) -> None:
    cells = [cell for cell in notebook() if cell["cell_type"] == "code"]
    assert len(cells) == 5 and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    (found,) = re.findall(r'SETTINGS = """(.*?)"""', "".join(cells[3]["source"]), re.DOTALL)
    (tmp_path / "settings.yaml").write_text(found)
    assert parse_run(["--config", str(tmp_path / "settings.yaml"), "--dataset", "arc-demo", "--model", "m"]).arc_text.codec == "auto"
    settings = yaml.safe_load(found)
    sweep = yaml.safe_load((ROOT / "configs/sweeps/demo_arc.yaml").read_text())
    demo = sweep["base"] | sweep["runs"][-1]
    own = {"dataset", "model", "codec", "save_adapters", "on_bad_row"}
    assert {name: value for name, value in settings.items() if name not in own} == {n: v for n, v in demo.items() if n not in own}


@pytest.mark.slow
def test_it_installs_from_a_wheelhouse_and_hands_in_whatever_happens(wheelhouse: Path, tmp_path: Path) -> None:
    data, where = str(tasks(tmp_path / "data")), {"STTRL_WHEELHOUSE": str(wheelhouse), "STTRL_SECONDS": "3600"}
    for number, what in enumerate(("end", "break")):
        folder = tmp_path / f"working-{number}"
        folder.mkdir()
        with started(folder, STTRL_DATA=data, DO=what, **where) as process:
            said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        assert "the table" in said and "2 tasks, 2 test inputs, 1 with an answer" in said
        assert ("exit code 4" in said) == (what == "break")
        assert len(handed_in(folder)) == 2 and answered(handed_in(folder)) == 1
    folder = tmp_path / "working-2"
    folder.mkdir()
    with started(folder, STTRL_DATA=data, DO="hang", **where) as process:
        assert process.stdout is not None
        while "1/2 done" not in process.stdout.readline():
            assert process.poll() is None
        for _ in range(3000):
            if answered(handed_in(folder)) == 1:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert "KeyboardInterrupt" in said and answered(handed_in(folder)) == 1


@pytest.mark.slow
def test_a_wheelhouse_that_is_cut_is_named_and_the_submission_is_there(wheelhouse: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(wheelhouse, tmp_path / "cut"))
    (wheel,) = (cut / "wheels").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    folder = tmp_path / "working"
    folder.mkdir()
    with started(folder, STTRL_DATA=str(tasks(tmp_path / "data")), STTRL_WHEELHOUSE=str(cut)) as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "1 of 1 files of the wheelhouse are missing or cut" in said and wheel.name in said
    assert len(handed_in(folder)) == 2 and answered(handed_in(folder)) == 0


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_runs_with_the_small_model(tmp_path: Path) -> None:
    folder, data = tmp_path / "working", tasks(tmp_path / "data", solutions=True)
    folder.mkdir()
    variables = {"STTRL_DATA": str(data), "STTRL_INSTALLED": "1", "STTRL_FLAGS": SMALL, "STTRL_SECONDS": "900"}
    with started(folder, PYTHONPATH=str(ROOT), **variables) as process:
        said = process.communicate(timeout=580)[0]
    assert process.returncode == 0, said
    assert "nothing is installed" in said and "16 tokens instead of" in said and re.search(r"^adapted +\.", said, re.MULTILINE)
    assert handed_in(folder).keys() == json.loads((data / "arc-agi_test_challenges.json").read_text()).keys()
    assert (folder / "submission.json").read_bytes().split() == (folder / "runs/arc/submission.json").read_bytes().split()
    journal = [json.loads(line) for line in (folder / "runs/arc/journal.jsonl").read_text().splitlines()]
    assert sum(record["kind"] == "step" for record in journal) == 4
    assert (folder / "runs/arc/report.html").exists()
