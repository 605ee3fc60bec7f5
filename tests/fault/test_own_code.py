"""Code of one's own, named by flags: what the pages show works outside the project, and what does not fit is one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_program
from arc_stand_in import arc_attempt, handed_in
from page_blocks import DOCS, commands, own_files

from sttrl import cli
from sttrl.config import RunConfig
from sttrl.config.extensions import installed
from sttrl.config.vote import VOTE
from sttrl.errors import UsageError
from sttrl.run.kind import check_extensions

program = test_program.program
PAGES = ("how_to_add_a_method", "how_to_add_a_vote", "how_to_add_a_dataset")
Said = pytest.CaptureFixture[str]
Program = Callable[..., int]


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside the project with the files of all pages; modules that are imported from it are forgotten after the test."""
    assert not tmp_path.is_relative_to(DOCS.parent)
    for page in (*PAGES, "how_to_add_to_arc"):
        for name, text in own_files(page).items():
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget(tmp_path)


def forget(folder: Path) -> None:
    """Let modules of a folder be imported anew."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def records(kind: str) -> list[dict[str, Any]]:
    lines = Path("outputs/run/journal.jsonl").read_text().splitlines()
    return [record for line in lines if (record := json.loads(line))["kind"] == kind]


def of_page(page: str, flag: str) -> list[str]:
    """The command of a page that has a flag."""
    (found,) = (command for command in commands(page, "sttrl") if flag in command)
    return [*found, "--run_name", "run"]


def test_the_method_of_the_page(program: Program) -> None:
    assert program(*of_page("how_to_add_a_method", "--adaptation_method")) == 0
    patient = [len([step for step in records("step") if step["id"] == question["id"]]) for question in records("question")]
    assert len(patient) == 2 and max(patient) > 1 and any(step["update"] for step in records("step"))
    command = [word.replace("patience=2", "patience=1") for word in of_page("how_to_add_a_method", "--adaptation_method")]
    assert program(*command, "--run_name", "hasty") == 0
    journal = [json.loads(line) for line in Path("outputs/hasty/journal.jsonl").read_text().splitlines()]
    assert [record["stop"] for record in journal if record["kind"] == "question"] == ["agreement"] * 2
    assert [record["update"] for record in journal if record["kind"] == "step"] == [None] * 2, "the first vote is enough"
    assert RunConfig.of(adaptation_method="my_methods:Patient").method_steps == 8, "its own default"


def test_the_vote_of_the_page(program: Program) -> None:
    assert program(*of_page("how_to_add_a_vote", "--voting_function")) == 0
    steps = records("step")
    assert steps and all(step["election"]["share_C"] != step["majority"]["share_C"] for step in steps), "it weighs by another statistic"


def test_the_reward_of_the_page(program: Program) -> None:
    assert program(*of_page("how_to_add_a_method", "--reward")) == 0
    steps = records("step")
    assert {reward for step in steps for reward in step["reward_G"]} == {1.0, 0.0, -1.0}
    for step in steps:
        winner = step["election"]["winner"]
        for c, reward in zip(step["ballots"]["class_G"], step["reward_G"], strict=True):
            alone = c is None or step["ballots"]["class_G"].count(c) == 1
            assert reward == (1.0 if c is not None and c == winner else -1.0 if alone else 0.0)


def test_the_estimator_of_the_page(program: Program) -> None:
    from sttrl.objectives.advantages import Evidence, advantages

    (found, other) = advantages(
        [Evidence(reward_G=(1.0, 0.25), length_G=(2, 1)), Evidence(reward_G=(0.0, -1.0), length_G=(1, 1))], "my_estimators:below_best"
    )
    assert (found.advantage_GT, other.advantage_GT) == (((0.0, 0.0), (-0.75,)), ((0.0,), (-1.0,)))
    assert program(*of_page("how_to_add_a_method", "--adv_estimator")) == 0
    assert any(step["update"] for step in records("step"))


def test_the_data_set_of_the_page(program: Program, capsys: Said) -> None:
    show, run = commands("how_to_add_a_dataset", "sttrl")
    assert cli.main(show) == 0
    said = capsys.readouterr().out
    assert "15 of 15 questions have a label" in said and "What is 1 - 0?" in said and "warning" not in said
    assert program(*run, "--run_name", "run") == 0
    assert [record["id"] for record in records("question")] == ["1-0", "2-0"]
    assert json.loads(Path("outputs/run/summary.json").read_text())["base"] is not None, "its labels are read by the report"
    capsys.readouterr()
    forget(Path.cwd())
    Path("my_data.py").unlink()
    assert cli.main(["report", "outputs/run"]) == 0
    assert "no labels: --dataset my_data:differences: there is no module 'my_data'" in capsys.readouterr().out


def test_the_installed_program_looks_in_the_current_folder() -> None:
    """`sttrl` is a script in another folder; python -P does not add the current one either."""
    (show, _) = commands("how_to_add_a_dataset", "sttrl")
    code = "import sys; from sttrl.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", "-c", code, *show], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "15 of 15 questions have a label" in done.stdout, done.stderr


def test_the_codec_and_the_selection_of_the_page(tmp_path: Path) -> None:
    (command,) = commands("how_to_add_to_arc", "sttrl")
    config = cli.parse_run([*command, "--run_name", "run", "--ids", "6150a2bd"])
    check_extensions(config)
    arc_attempt(config)
    chosen = handed_in(tmp_path / "outputs" / "run")["6150a2bd"][0]
    arc_attempt(config.changed(codec="cells_16", selection="majority", run_name="ours", score_views=0))
    assert chosen == handed_in(tmp_path / "outputs" / "ours")["6150a2bd"][0], "the base copies the query, by columns as by rows"
    polls = json.loads((tmp_path / "outputs" / "run" / "results.jsonl").read_text())["polls"]["base"]
    (journalled,) = records("question")
    best = journalled["polls"]["base"]["tests"][0]["candidates"][0]
    assert best["score"] > len(best["search_nll"]) and polls["attempts"]
    assert cli.main(["pool", "outputs/run", "--out", "pooled", "--selection", "my_arc:most_found"]) == 0
    assert handed_in(tmp_path / "pooled")["6150a2bd"] == handed_in(tmp_path / "outputs" / "run")["6150a2bd"]


def test_what_the_pages_tell_to_import_is_there() -> None:
    import importlib

    rows = [line.split("|")[1:3] for line in (DOCS / "how_to_add_your_own.md").read_text().splitlines() if line.startswith("| `sttrl.")]
    assert len(rows) > 10
    for module, names in rows:
        missing = [
            name for name in names.replace("`", "").split(",") if not hasattr(importlib.import_module(module.strip(" `")), name.strip())
        ]
        assert not missing, module


def test_the_page_names_the_groups_that_a_method_may_read() -> None:
    row = next(line for line in (DOCS / "how_to_add_a_method.md").read_text().splitlines() if line.startswith("| `reads` |"))
    groups = [name for name, group in RunConfig().groups.items() if group.methods is not None]
    assert re.findall(r"`(\w+)`", row)[1:] == groups


# What does not fit


BROKEN = {
    "--voting_function no_such:vote": ["there is no module 'no_such'", "current folder"],
    "--voting_function my_votes.py:hesitation": ["Write my_votes, without .py"],
    "--voting_function my_votes:hesitaton": ["my_votes (", "has no 'hesitaton'. Did you mean 'hesitation'?"],
    "--voting_function wrong:failing": ["wrong cannot be imported: ZeroDivisionError: division by zero", "wrong.py, line 1)"],
    "--voting_function unparsed:x": ["unparsed cannot be imported: SyntaxError", "unparsed.py, line 2)"],
    "--voting_function unmet:x": ["unmet cannot be imported: ModuleNotFoundError: No module named 'nowhere'", "unmet.py, line 1)"],
    "--voting_function bad:few": ["bad.py, line 1)", "it takes (ballots), and is given (ballots, config)"],
    "--voting_function bad:number": ["an object of the type int is no function"],
    "--reward bad:few": ["it takes (ballots), and is given (ballots, election, seeds_G)"],
    "--adv_estimator bad:few": ["needs ballots", "token_level_rewards"],
    "--adaptation_method bad:few": ["is no class", "how_to_add_a_method.md"],
    "--adaptation_method bad:NoAdapt": ["NoAdapt (", "bad.py, line 4)", "has no `async adapt(problem, policy)`"],
    "--adaptation_method bad:Waits": ["has `adapt`, which is no `async def`"],
    "--adaptation_method bad:NoTools": ["it takes (), and is given (tools)"],
    "--adaptation_method bad:Defaults": ["has `defaults` that are dict"],
    "--adaptation_method bad:Reads": ["has `reads` that are {'votes'}", "reinforcement"],
    "--adaptation_method bad:Plain --method_settings a=1": ["has no Settings"],
    "--adaptation_method my_methods:Patient --method_settings patiense=1": ["no setting 'patiense'. Did you mean patience?"],
    "--adaptation_method my_methods:Patient --method_settings patience=x": [
        "--method_settings patience=x: Input should be a valid integer"
    ],
    "--adaptation_method my_methods:Patient --method_settings patience": ["there is no setting 'patience'"],
    "--method_settings patience=1": ["does nothing with --adaptation_method sttrl"],
    "--adaptation_method my_methods:Patient --epochs 2": ["--epochs 2 does nothing with --adaptation_method my_methods:Patient"],
    "--dataset arc-demo --selection bad:few --codec my_arc:no": ["my_arc (", "has no 'no'"],
    "--dataset arc-demo --selection bad:none": ["it takes (), and is given (candidates)"],
    "--dataset arc-demo --selection bad:experts --score_views 0": ["needs the product of experts"],
}
BAD = """def few(ballots):
    return ballots

class NoAdapt:
    def __init__(self, tools): pass
    def delta(self, problem, questions=1): pass

class Waits(NoAdapt):
    def adapt(self, problem, policy): pass

class NoTools(Waits):
    def __init__(self): pass

class Plain(NoAdapt):
    async def adapt(self, problem, policy): pass

class Defaults(Plain):
    defaults = {"steps": 1}

class Reads(Plain):
    reads = {"votes"}

number = 3
def none(): pass
from sttrl.arc.selections import ExpertSelection
experts = ExpertSelection(function=few)
"""


@pytest.mark.parametrize("flags", BROKEN)
def test_what_does_not_fit_is_one_line_that_says_where(flags: str, program: Program, tmp_path: Path, capsys: Said) -> None:
    files = {"bad": BAD, "wrong": "failing = 1 / 0\n", "unparsed": "x = 1\nx = = 2\n", "unmet": "import nowhere\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert program(*flags.split()) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and not said.out
    assert all(message in lines[0] for message in BROKEN[flags]), lines[0]
    assert not (tmp_path / "outputs").exists()


RAISING = """from my_methods import Patient
from sttrl.data import NamedDataset

class NoBeginning(Patient):
    def __init__(self, tools): raise ValueError("not today")

class NoPlan(Patient):
    def plan(self, problems): raise ValueError("not today")
    async def step(self, index, problems, policy): pass

def rows(): raise ValueError("not today")
data = NamedDataset(name="data", generate=rows)
nothing = NamedDataset(name="nothing", generate=lambda: None)
"""


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--adaptation_method raising:NoBeginning", 2, "cannot begin: ValueError: not today (HERE/raising.py, line 5)."),
        ("--adaptation_method raising:NoPlan", 2, "cannot plan its steps: ValueError: not today (HERE/raising.py, line 8)."),
        ("--dataset raising:data", 3, "--dataset raising:data cannot make its rows: ValueError: not today (HERE/raising.py, line 11)."),
        ("--dataset raising:nothing", 3, "cannot make its rows: TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_what_raises_outside_the_problems_is_one_line(
    flags: str, code: int, message: str, program: Program, tmp_path: Path, capsys: Said
) -> None:
    (tmp_path / "raising.py").write_text(RAISING)
    assert program("--limit", "1", *flags.split()) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message.replace("HERE", str(tmp_path)) in last


RETURNING = """few = lambda ballots, election, seeds_G: (1.0,)
nan = lambda ballots, election, seeds_G: [float("nan") for _ in seeds_G]
words = lambda ballots, election, seeds_G: ["right" for _ in seeds_G]
pair = lambda ballots, config: (0, 1)
"""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--reward returning:few", "the reward returning:few gave [1.0] for 7 samples; each needs a finite number"),
        ("--reward returning:nan", "the reward returning:nan gave [nan, "),
        ("--reward returning:words", "could not convert string to float: 'right'"),
        ("--voting_function returning:pair", "the vote returning:pair returned tuple, not an Election"),
    ],
)
def test_what_returns_something_else_ends_each_problem_with_the_reason(flags: str, message: str, program: Program, tmp_path: Path) -> None:
    (tmp_path / "returning.py").write_text(RETURNING)
    assert program("--limit", "1", "--run_name", "run", *flags.split()) == 5
    (question,) = records("question")
    assert question["status"] == "failed" and message in question["error"] and "traceback is in logs" in question["error"]
    assert cli.main(["report", "outputs/run"]) == 0


def test_a_codec_is_checked_when_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("class Mute:\n    def __init__(self, tokenizer): pass\n    def write(self, puzzle): pass\n")
    config = cli.parse_run(["--dataset", "arc-demo", "--codec", "bad:Mute", "--adaptation_method", "none", "--run_name", "run"])
    with pytest.raises(UsageError, match=r"--codec bad:Mute does not fit: an object of the type Mute has no `read\(reply, query\)`"):
        arc_attempt(config)


def test_a_data_set_that_does_not_fit_is_exit_code_3(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "bad.py").write_text("rows = [1]\n")
    assert cli.main(["data", "bad:rows"]) == 3
    assert "--dataset bad:rows does not fit: an object of the type list is no NamedDataset" in capsys.readouterr().err


def test_files_of_settings_and_sweeps_take_such_names(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("voting_function: my_votes:hesitation\nmethod_settings: [patience=1]\n")
    config = cli.parse_run(["--config", "a.yaml", "--adaptation_method", "my_methods:Patient"])
    assert (config.vote.voting_function, config.method.method_settings) == ("my_votes:hesitation", ("patience=1",))
    (tmp_path / "s.yaml").write_text("axes: {voting_function: [majority, 'my_votes:hesitation']}\n")
    sweep = cli.read_sweep(Path("s.yaml"))
    assert [config.vote.voting_function for config in cli.configs_of(sweep, [])] == ["majority", "my_votes:hesitation"]
    (tmp_path / "s.yaml").write_text("axes: {voting_function: [majority, plurality]}\n")
    with pytest.raises(UsageError, match="voting_function cannot be 'plurality'"):
        cli.read_sweep(Path("s.yaml"))


ALL_AT_ONCE = """
from my_methods import Patient
from sttrl.methods.train_groups import train_groups
from sttrl.types import Step

class Together:
    reads = ("vote", "reinforcement", "training")
    def __init__(self, tools): self.tools = tools
    def delta(self, problem, questions=1): return self.tools.weights(None, 2)
    def plan(self, problems): return [problems, problems]
    async def step(self, index, problems, policy):
        for problem in problems:
            version, vote = policy.version, await self.tools.hold(problem, policy, index)
            groups = await train_groups(self.tools.config, policy, [vote])
            update = await policy.update(groups, self.tools.objective) if groups else None
            self.tools.observe(problem, Step(index=index, version=version, vote=vote, update=update))
"""


def test_a_method_for_all_questions_at_once(program: Program, tmp_path: Path) -> None:
    (tmp_path / "together.py").write_text(ALL_AT_ONCE)
    assert program("--adaptation_method", "together:Together", "--limit", "2", "--run_name", "run", "--eval_every", "1") == 0
    assert [(step["id"], step["step"]) for step in records("step")] == [(q["id"], index) for index in (0, 1) for q in records("question")]
    assert cli.parse_run(["--adaptation_method", "together:Together"]).trains_together


# What a run keeps of it


def test_a_run_is_not_resumed_with_other_code(program: Program, tmp_path: Path, capsys: Said) -> None:
    flags = ["--voting_function", "my_votes:hesitation", "--limit", "2"]
    assert program(*flags, "--run_name", "run") == 0
    config = json.loads(Path("outputs/run/config.json").read_text())
    assert config["voting_function"] == "my_votes:hesitation" and config["code_of_voting_function"].startswith("my_votes:hesitation ")
    assert not any(name.startswith("code_of_") and name != "code_of_voting_function" for name in config)
    assert program(*flags, "--run_name", "run") == 0, "the same code is the same run"
    first = program(*flags), sorted(path.name for path in Path("outputs").iterdir())
    text = Path("my_votes.py").read_text()
    Path("my_votes.py").write_text(text.replace("math.exp(-entropy)", "1.0"))
    forget(tmp_path)
    capsys.readouterr()
    assert program(*flags, "--run_name", "run") == 2
    said = capsys.readouterr().err
    assert "outputs/run holds another run: the code of --voting_function 'my_votes:hesitation " in said and "--run_name" in said
    assert first[0] == program(*flags) == 0
    assert len(list(Path("outputs").iterdir())) == len(first[1]) + 1, "without --run_name other code is another run"


def test_the_code_of_a_package_is_all_of_it(tmp_path: Path) -> None:
    from sttrl.config import codes

    package = tmp_path / "lab" / "votes"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "mine.py").write_text("from lab.weights import vote\n")
    (tmp_path / "lab" / "weights.py").write_text("from sttrl.voting import majority as vote\n")
    config = RunConfig.of(voting_function="lab.votes.mine:vote")
    before = codes(config)
    (tmp_path / "lab" / "weights.py").write_text("from sttrl.voting import confidence as vote\n")
    assert before.keys() == {"voting_function"} and codes(config) != before
    assert codes(RunConfig()) == {}


def test_a_run_of_a_version_without_a_setting_is_resumed(program: Program) -> None:
    assert program("--limit", "1", "--run_name", "run") == 0
    file = Path("outputs/run/config.json")
    older = json.loads(file.read_text())
    del older["method_settings"]
    file.write_text(json.dumps(older))
    assert program("--limit", "1", "--run_name", "run") == 0


# Names from installed packages


def install(folder: Path, name: str, entry_points: dict[str, dict[str, str]], version: str = "1.0") -> None:
    """What pip would leave of a package: its metadata, beside its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()) for group, entries in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(text))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of modules."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_package_of_the_page(site: Path, program: Program, capsys: Said) -> None:
    project = tomllib.loads(own_files("how_to_add_your_own")["pyproject.toml"])["project"]
    install(site, project["name"], project["entry-points"], project["version"])
    Path("my_votes.py").rename(site / "my_votes.py")
    (site / "never.py").write_text("1 / 0\n")
    install(site, "others", {"sttrl.methods": {"never": "never:x"}, "sttrl.data_sets": {"differences": "my_data:differences"}})
    assert cli.main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: majority; installed: hesitation)" in said and "installed: never)" in said and "installed: differences)" in said
    assert program("--voting_function", "hesitation", "--dataset", "differences", "--limit", "1", "--run_name", "run") == 0
    config = json.loads(Path("outputs/run/config.json").read_text())
    assert (config["voting_function"], config["dataset"]) == ("hesitation", "differences")
    assert config["code_of_voting_function"].startswith("my_votes:hesitation ")
    assert "never" not in sys.modules, "only what is chosen is imported"
    capsys.readouterr()
    assert cli.main(["--voting_function", "hesitaton"]) == 2
    assert "Did you mean 'hesitation'?" in capsys.readouterr().err
    assert cli.main(["report", "outputs/run"]) == 0
    assert "no labels" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("votes", "majority"),
        ("methods", "none"),
        ("codecs", "auto"),
        ("adv_estimators", "grpo"),
        ("data_sets", "AIME-TTT"),
        ("data_sets", "arc-demo"),
    ],
)
def test_a_name_that_is_ours_is_an_error_that_names_both(group: str, name: str, site: Path, program: Program, capsys: Said) -> None:
    install(site, "my-votes", {f"sttrl.{group}": {name: "my_votes:hesitation"}})
    assert program() == 2
    said = capsys.readouterr().err
    assert f"{name!r} of the package my-votes 1.0 (my_votes:hesitation) has the name of sttrl's own" in said
    assert f"sttrl.{group}" in said and "Uninstall" in said


def test_a_name_of_two_packages_is_an_error_that_names_both(site: Path) -> None:
    install(site, "one", {"sttrl.votes": {"mine": "one:vote"}})
    install(site, "two", {"sttrl.votes": {"mine": "two:vote"}})
    with pytest.raises(UsageError, match=r"the package one 1.0 \(one:vote\) and the package two 1.0 \(two:vote\) both have a vote 'mine'"):
        installed(VOTE)
