"""What is written for readers agrees with the code: links, flags, defaults, commands."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from sttrl import cli
from sttrl.cli import completion, trm_arguments
from sttrl.cli.serve import parse_serve
from sttrl.config import RunConfig, field_names, fields_of
from sttrl.config.packaged import settings_file
from sttrl.ledger.folder import FREE
from sttrl.methods import METHODS
from sttrl.serve.settings import ServerSettings
from sttrl.trm import config_help, run_names
from sttrl.trm.adapt import Mode
from sttrl.trm.config import CONFIGS, TrainConfig, as_mapping, config_of, read_config
from sttrl.trm.config import fields as trm_keys
from sttrl.trm.config import flat as flat_settings
from sttrl.trm.data.commands import BUILDERS
from sttrl.trm.evaluate import PLAIN, PTRM, SHUFFLED
from sttrl.trm.overrides import find_config, take_config
from sttrl.types import StopReason
from sttrl.voting import VOTES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "benchmarks/README", "verl/README")] + sorted(DOCS.glob("*.md"))
WHOLE_COMMAND_LINE = (DOCS / "command_line.md").read_text()
TRM_PART = WHOLE_COMMAND_LINE.split("## The recursive model\n")[1].split("\n## ")[0]
COMMAND_LINE = WHOLE_COMMAND_LINE.replace(TRM_PART, "")
TRM_PAGE = (DOCS / "trm.md").read_text()
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG_ROW = re.compile(r"^\| `--(\w+)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
KEY_ROW = re.compile(r"^\| `([a-z][\w.\[\]]*)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
PROGRAM = re.compile(r"(?:cd verl && )?(?:(?:\.venv/bin/)?python main\.py|sttrl) ")
TORCHRUN = re.compile(r"torchrun (?:--\S+(?: \d+)? )*-m sttrl\.trm ")
SUBCOMMANDS = {
    "report": cli.ReportArguments,
    "compare_to_paper": cli.CompareToPaperArguments,
    "view": cli.ViewArguments,
    "data": cli.DataArguments,
    "score": cli.ScoreArguments,
    "pool": cli.PoolArguments,
    "shrink": cli.ShrinkArguments,
    "merge": cli.MergeArguments,
    "export": cli.ExportArguments,
    "serve": ServerSettings,
    "presets": cli.PresetsArguments,
    "env": cli.EnvArguments,
}
TRM_COMMANDS: dict[str, tuple[type, set[str]]] = {
    **{f"build {name}": (kind, set()) for name, kind in BUILDERS.items()},
    "adapt": (trm_arguments.AdaptArguments, {"checkpoint", "data"}),
    "solve": (trm_arguments.SolveArguments, {"checkpoint", "task"}),
    "evaluate": (trm_arguments.EvaluateArguments, {"checkpoint", "data"}),
    "merge": (trm_arguments.MergeWeightsArguments, {"checkpoint"}),
    "push": (trm_arguments.PushArguments, {"run", "repo"}),
    "demo": (trm_arguments.DemoArguments, set()),
}
"""The commands of `trm` but `train`, and which of their arguments are no flags."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page: Path) -> None:
    targets = [link.split("#")[0] for link in LINK.findall(page.read_text()) if not re.match(r"[a-z]+:", link)]
    assert not [target for target in targets if target and not (page.parent / target).exists()]


def test_the_index_leads_to_every_page() -> None:
    assert set(LINK.findall((DOCS / "index.md").read_text())) >= {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_command_line_names_every_flag_and_no_other() -> None:
    mentioned = set(re.findall(r"--([a-z][\w-]*)", COMMAND_LINE))
    of_subcommands = {"out", "port", "untie", "stage", "detail", "levels", "compare", "halves"}
    of_subcommands |= {"to", "repo_id", "private", "token", "commit_message", "path_in_repo", "branch"}
    of_subcommands |= {field.name for field in dataclasses.fields(ServerSettings)}
    assert mentioned == {*field_names(), *of_subcommands, "help", "help_all", "version", "no_flag", "flag"}
    assert sorted(name for name, _, _ in FLAG_ROW.findall(COMMAND_LINE)) == sorted(field_names())


def test_command_line_has_the_defaults() -> None:
    defaults = {field.name: shown(field.default) for _, field in fields_of(RunConfig)}
    assert {name: default for name, default, _ in FLAG_ROW.findall(COMMAND_LINE)} == defaults


def test_command_line_names_every_choice() -> None:
    rows = {name: text for name, _, text in FLAG_ROW.findall(COMMAND_LINE)}
    kinds = (RunConfig, *map(type, RunConfig().groups.values()))
    hints = {name: hint for kind in kinds for name, hint in typing.get_type_hints(kind).items()}
    missing = {name: [c for c in choices(hints[name]) if f"`{c}`" not in rows[name]] for name in rows}
    assert not {name: found for name, found in missing.items() if found}


def test_command_line_names_the_subcommands_and_their_flags() -> None:
    rows = dict(re.findall(r"^\| `(\w+)[^`]*` \| [^|]* \|([^|]*)\|$", COMMAND_LINE.split("## Subcommands")[1], re.MULTILINE))
    flags = {name: set(re.findall(r"--(\w+)", rows[name])) for name in cli.COMMANDS if name not in ("sweep", "finetune", "trm")}
    positional = {
        "report": {"runs"},
        "compare_to_paper": {"runs"},
        "view": {"runs"},
        "data": {"dataset"},
        "score": {"submission", "solutions"},
        "pool": {"runs"},
        "shrink": {"model"},
        "merge": {"source"},
        "export": {"run"},
    }
    assert flags == {name: {f.name for f in dataclasses.fields(kind)} - positional.get(name, set()) for name, kind in SUBCOMMANDS.items()}
    assert set(rows) == set(cli.COMMANDS)


def trm_section(command: str) -> str:
    """What the section on `trm` says of a command."""
    return TRM_PART.split(f"### `trm {command}`\n")[1].split("\n### ")[0]


def test_command_line_has_every_command_of_trm() -> None:
    assert set(re.findall(r"^### `trm ([\w -]+)`$", TRM_PART, re.MULTILINE)) == {*TRM_COMMANDS, "train"}
    named = set(re.findall(r"^\| `trm (\w+)", TRM_PART, re.MULTILINE))
    assert named == set(cli.trm.COMMANDS)


@pytest.mark.parametrize("command", TRM_COMMANDS)
def test_command_line_has_the_flags_of_trm_with_their_defaults(command: str) -> None:
    kind, positional = TRM_COMMANDS[command]
    rows = {name: (default, text) for name, default, text in FLAG_ROW.findall(trm_section(command))}
    hints = typing.get_type_hints(kind)
    defaults = {field.name: shown_or_required(field) for field in dataclasses.fields(kind) if field.name not in positional}
    assert {name: default for name, (default, _) in rows.items()} == defaults
    assert not [(name, choice) for name, (_, text) in rows.items() for choice in choices(hints[name]) if f"`{choice}`" not in text]


def test_command_line_has_the_settings_of_trm_train_with_their_defaults() -> None:
    rows = {name: (default, text) for name, default, text in KEY_ROW.findall(trm_section("train"))}
    default: dict[str, object] = {"evaluators[].name": "arc@ARC", "evaluators": ["arc@ARC"]}
    default |= {f"evaluators[].{name}": value for name, value in config_help.as_mapping_of_evaluator().items()}
    flat = flat_settings(as_mapping(TrainConfig()))
    assert {name: text for name, (text, _) in rows.items()} == {
        name: shown_setting(default[name] if name in default else flat[name]) for name in config_help.documentation()
    }
    chosen = {name: choices(hint) for name, hint in trm_keys().items() if name != "evaluators"}
    assert not [(name, c) for name, names in chosen.items() for c in names if len(names) > 1 and f"`{c}`" not in rows[name][1]]


def test_the_page_of_the_recursive_model_names_what_there_is() -> None:
    assert not [path.stem for path in CONFIGS.glob("*.yaml") if f"`{path.stem}`" not in TRM_PAGE]
    architectures = TRM_PAGE.split("### Other architectures")[1].split("\n## ")[0]
    assert not [path.stem for path in (CONFIGS / "arch").glob("*.yaml") if f"`{path.stem}`" not in architectures]
    free = re.search(r"these may differ: ([^.]*)\.", TRM_PAGE)
    loader = {name for name in run_names.FREE if name.startswith("dataloader_")}
    assert free and set(re.findall(r"`(\w+)`", free[1])) == {*(run_names.FREE - loader), "dataloader_"}
    rows = re.findall(r"^\| (\w[\w ]*) \| ", TRM_PAGE.split("An evaluation has one row, or several:")[1].split("**Is it")[0], re.MULTILINE)
    assert rows == ["row", PLAIN, PTRM, SHUFFLED]
    modes = (DOCS / "trm_adaptation.md").read_text().split("## Modes")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", modes, re.MULTILINE) == list(typing.get_args(Mode))


def test_every_method_vote_and_stop_is_explained() -> None:
    sections = re.findall(r"^## (\w+)$", (DOCS / "methods.md").read_text(), re.MULTILINE)
    assert sections == list(METHODS)
    row = next(text for name, _, text in FLAG_ROW.findall(COMMAND_LINE) if name == "voting_function")
    assert all(f"`{vote}`" in row for vote in VOTES)
    run = (DOCS / "run.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| ", run, re.MULTILINE)) == set(typing.get_args(StopReason))
    free = re.search(r"may change: ([^.]*)\.", run)
    assert free and set(re.findall(r"--(\w+)", free[1])) == FREE - {"config", "run_name"}


def test_exit_codes_are_the_same_everywhere() -> None:
    tables = [exit_codes(page.read_text()) for page in (ROOT / "README.md", DOCS / "command_line.md")]
    assert tables[0] == tables[1]
    assert set(tables[0]) == {"0", "2", "3", "4", "5", str(cli.INTERRUPTED)}


def commands() -> Iterator[tuple[str, str]]:
    """Every command in a code block, and in the text where it is whole; tests/run/test_how_to.py has those of what is yet to be added."""
    for page in (page for page in PAGES if not page.name.startswith("how_to_add")):
        text = page.read_text()
        blocks = [line for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
        spans = [span for span in re.findall(r"`([^`\n]+)`", text) if "..." not in span]
        for command in (c.strip() for c in [*blocks, *spans]):
            if PROGRAM.match(command) or TORCHRUN.match(command):
                yield named(page), command


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(commands())))
def test_every_command_parses(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(TORCHRUN.sub("", PROGRAM.sub("", command, count=1), count=1), comments=True)
    if TORCHRUN.match(command):
        arguments.insert(0, "trm")
    if "--help" in arguments:
        return
    if completion.asked_for(arguments):
        assert arguments[1] in completion.SHELLS and len(arguments) <= 3
    elif arguments and arguments[0] == "finetune":
        cli.parse_run(["--adaptation_method", *arguments])
    elif arguments and arguments[0] == "sweep":
        assert cli.configs_of(cli.read_sweep(settings_file(arguments[1])), arguments[2:])
    elif arguments and arguments[0] == "trm":
        parse_trm(arguments[1:])
    elif arguments and arguments[0] == "serve":
        parse_serve(arguments[1:])
    elif arguments and arguments[0] in SUBCOMMANDS:
        cli.parse(SUBCOMMANDS[arguments[0]], arguments[1:])
    else:
        cli.parse_run(arguments)


def parse_trm(arguments: list[str]) -> None:
    """Parse the arguments of `trm` as the program does."""
    name, rest = arguments[0], arguments[1:]
    if name == "train":
        config, settings = take_config(rest)
        read_config(None if config is None else find_config(config, CONFIGS), settings)
        return
    if name == "build":
        name, rest = f"build {rest[0]}", rest[1:]
    own, settings = cli.trm.split_settings(rest)
    cli.parse(TRM_COMMANDS[name][0], own)
    config_of({}, settings)
    assert not settings or name in ("adapt", "solve", "evaluate")


def test_commands_are_found() -> None:
    found = {page for page, _ in commands()}
    assert {"README.md", "docs/quickstart.md", "docs/command_line.md", "docs/trm.md", "docs/trm_adaptation.md"} <= found
    assert sum(bool(TORCHRUN.match(command)) for _, command in commands()) > 5


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = (".".join(("pypi", "org")), ".".join(("files", "pythonhosted", "org")), ".".join(("registry", "npmjs", "org")))
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert not [named(file) for file in files if any(host.encode() in file.read_bytes() for host in hosts)]


def shown(default: object) -> str:
    """A default as the table has it."""
    words = {"None": "unset", "()": "none", "True": "on", "False": "off"}
    return words.get(str(default), f"`{default}`")


def shown_or_required(field: dataclasses.Field[object]) -> str:
    """The default of a flag of `trm`."""
    return "required" if field.default is dataclasses.MISSING else shown_setting(field.default)


def shown_setting(default: object) -> str:
    """A default of `trm` as its tables have it: a list in brackets, as YAML writes it."""
    if isinstance(default, list) and default:
        return f"`[{', '.join(map(str, default))}]`"
    return "none" if default in ([], "") else shown(default)


def choices(hint: object) -> tuple[str, ...]:
    """The values of a Literal, wherever it stands in a type."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return tuple(choice for part in typing.get_args(hint) for choice in choices(part))


def exit_codes(text: str) -> dict[str, str]:
    """The rows of a table of exit codes."""
    return dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
