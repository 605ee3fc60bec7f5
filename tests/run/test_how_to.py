"""The pages on how to add something, followed step by step in a copy of the project: what they tell works as it stands there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import OWN_FILE, blocks, commands, own_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
PAGES = ("how_to_add_a_dataset", "how_to_add_a_vote", "how_to_add_a_method")
PLACE = re.compile(r"# (?P<file>[\w/.]+\.py)(?:, (?P<imports>with the imports)|, at the end of (?P<name>\w+))?")
"""What the first line of a block of Python says: a new file, or where in a file the rest of the block goes."""
NOT_COPIED = {"outputs", "build", "dist"}
FAST_CHECKS = ("tests/unit/test_voting.py", "tests/unit/test_config.py", "tests/unit/test_house.py", "tests/unit/test_docs.py")
NOT_AGAIN = "not test_every_command_parses"
"""Tests that hold methods, votes, data sets and pages to each other, but for those of commands that are the same in the copy."""
SMALL = "--answer_kind number --ties first --deterministic --run_name run"


def follow(page: str, copy: Path) -> None:
    """Do what every block of Python says that is about the project."""
    for block in blocks(page, "python"):
        if OWN_FILE.match(block):
            continue
        first, _, text = block.partition("\n")
        place = PLACE.fullmatch(first)
        assert place, f"{page}: the block must begin with its place, not with {first!r}"
        file = copy / place["file"]
        if place["imports"]:
            write(file, below_the_imports(file.read_text(encoding="utf-8"), text))
        elif place["name"]:
            write(file, with_entries(file.read_text(encoding="utf-8"), place["name"], text))
        else:
            assert not file.exists(), f"{page}: {file} is there already"
            write(file, text)


def write(file: Path, source: str) -> None:
    ast.parse(source)
    file.write_text(source, encoding="utf-8")


def below_the_imports(source: str, text: str) -> str:
    last = max(node.end_lineno or 0 for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom))
    lines = source.splitlines(keepends=True)
    return "".join([*lines[:last], text, *lines[last:]])


def with_entries(source: str, name: str, text: str) -> str:
    """The source with more entries behind the last one of the collection ``name``."""
    (value,) = (node.value for node in ast.parse(source).body if name in names_set(node))  # type: ignore[attr-defined]
    while isinstance(value, ast.Call | ast.Subscript):
        value = value.args[0] if isinstance(value, ast.Call) else value.slice
    last = (value.values if isinstance(value, ast.Dict) else value.elts)[-1]
    lines = source.splitlines(keepends=True)
    line = lines[last.end_lineno - 1].encode()
    before, after = line[: last.end_col_offset].decode(), line[last.end_col_offset :].decode()
    return "".join([*lines[: last.end_lineno - 1], f"{before},\n{text.rstrip().rstrip(',')}", after, *lines[last.end_lineno :]])


def names_set(node: ast.stmt) -> set[str]:
    """The names that a statement sets."""
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which every page was followed, the steps that are written in words included."""
    folder = tmp_path_factory.mktemp("followed") / "sttrl"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in NOT_COPIED and not path.name.startswith(".") and not path.name.endswith((".lock", ".egg-info")):
            skip = shutil.ignore_patterns("__pycache__")
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name, **({"ignore": skip} if path.is_dir() else {}))
    for page in PAGES:
        follow(page, folder)
    command_line, methods, data = (folder / "docs" / f"{name}.md" for name in ("command_line", "methods", "data"))
    text = command_line.read_text(encoding="utf-8")
    for flag in ("voting_function", "adaptation_method"):
        text, count = re.subn(rf"^(\| `--{flag}` \| .*) \|$", r"\1 Or `mine`. |", text, flags=re.MULTILINE)
        assert count == 1
    command_line.write_text(text, encoding="utf-8")
    methods.write_text(methods.read_text(encoding="utf-8") + "\n## mine\n\nWhat it computes.\n", encoding="utf-8")
    (row,) = blocks("how_to_add_a_dataset", "markdown")
    data.write_text(data.read_text(encoding="utf-8").replace("| arithmetic-demo | ", f"{row}| arithmetic-demo | ", 1), encoding="utf-8")
    rows = [{"question": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(250)]
    (folder / "FOLDER").mkdir()
    (folder / "FOLDER" / "MINE-TTT.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def in_copy(copy: Path, *command: str) -> str:
    """Run Python in the copy, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("VERL_PLATFORM", None)
    done = subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def test_the_checks_of_the_project_pass_on_what_the_pages_told(copy: Path) -> None:
    in_copy(copy, "-m", "ruff", "check", "--ignore", "I001", "sttrl", "tests")
    in_copy(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", NOT_AGAIN, *FAST_CHECKS)


def test_the_data_set_is_read_without_a_warning(copy: Path) -> None:
    command = next(command for command in commands("how_to_add_a_dataset", "python main.py") if command[0] == "data")
    said = in_copy(copy, "main.py", *command)
    assert "MINE-TTT" in said and "250 of 250 questions have a label" in said and "warning" not in said
    code = "from sttrl.data import DATASETS; print(DATASETS['MINE-TTT'].hub.convert({'text': 'Why?', 'result': 2, 'key': 'k'}))"
    assert ast.literal_eval(in_copy(copy, "-c", code)) == {"question": "Why?", "answer": 2, "id": "k"}


@pytest.mark.long
def test_the_commands_of_the_pages_run(copy: Path, tiny_model: Path, tmp_path: Path) -> None:
    """All that was added in one run, by the flags of the pages' own commands."""
    flags = [flag for page in PAGES for command in commands(page, "python main.py") if command[0] != "data" for flag in command]
    assert {"--dataset", "--voting_function", "--adaptation_method"} <= set(flags)
    in_copy(copy, "main.py", *flags, *shlex.split(SMALL), "--model", str(tiny_model), "--output_dir", str(tmp_path))
    records = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["status"] for record in records if record["kind"] == "question"] == ["done", "done"]
    assert sum(record["kind"] == "step" for record in records) == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (config["dataset"], config["voting_function"], config["adaptation_method"]) == ("MINE-TTT", "mine", "mine")


def test_code_outside_the_project_has_the_types_that_the_project_expects(tmp_path: Path) -> None:
    files = {name: text for page in (*PAGES, "how_to_add_to_arc") for name, text in own_files(page).items()}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *config, *files]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_code_outside_the_project_runs_on_the_real_engine(tiny_model: Path, tmp_path: Path) -> None:
    """Method, vote, reward, estimator and data set of one's own in one run, by the flags of the pages' own commands."""
    flags: list[str] = []
    for page in PAGES:
        for name, text in own_files(page).items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        flags += [flag for command in commands(page, "sttrl") if command[0] != "data" for flag in command]
    own = {"--dataset", "--voting_function", "--adaptation_method", "--reward", "--adv_estimator"}
    assert own <= set(flags) and not tmp_path.is_relative_to(ROOT)
    code = "import sys; from sttrl.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("VERL_PLATFORM", None)
    command = [sys.executable, "-P", "-c", code, *flags, "--ties", "first", "--run_name", "run", "--model", str(tiny_model)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    records = [json.loads(line) for line in (tmp_path / "outputs" / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["status"] for record in records if record["kind"] == "question"] == ["done", "done"]
    assert any(record["update"] for record in records if record["kind"] == "step")
    config = json.loads((tmp_path / "outputs" / "run" / "config.json").read_text(encoding="utf-8"))
    assert {f"--{name.removeprefix('code_of_')}" for name in config if name.startswith("code_of_")} == own
