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
from sttrl.config import RunConfig, field_names, fields_of
from sttrl.ledger.folder import FREE
from sttrl.methods import METHODS
from sttrl.types import StopReason
from sttrl.voting import VOTES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "benchmarks/README", "verl/README")] + sorted(DOCS.glob("*.md"))
COMMAND_LINE = (DOCS / "command_line.md").read_text()
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG_ROW = re.compile(r"^\| `--(\w+)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
PROGRAM = re.compile(r"(?:cd verl && )?(?:(?:\.venv/bin/)?python main\.py|sttrl) ")
SUBCOMMANDS = {
    "report": cli.ReportArguments,
    "data": cli.DataArguments,
    "score": cli.ScoreArguments,
    "pool": cli.PoolArguments,
    "shrink": cli.ShrinkArguments,
    "merge": cli.MergeArguments,
    "env": cli.EnvArguments,
}


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
    of_subcommands = {"out", "untie", "stage", "detail", "levels", "compare"}
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
    flags = {name: set(re.findall(r"--(\w+)", rows[name])) for name in cli.COMMANDS if name not in ("sweep", "finetune")}
    positional = {
        "report": {"runs"},
        "data": {"dataset"},
        "score": {"submission", "solutions"},
        "pool": {"runs"},
        "shrink": {"model"},
        "merge": {"source"},
    }
    assert flags == {name: {f.name for f in dataclasses.fields(kind)} - positional.get(name, set()) for name, kind in SUBCOMMANDS.items()}
    assert set(rows) == set(cli.COMMANDS)


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
            if PROGRAM.match(command):
                yield named(page), command


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(commands())))
def test_every_command_parses(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(PROGRAM.sub("", command, count=1), comments=True)
    if "--help" in arguments:
        return
    if arguments and arguments[0] == "finetune":
        cli.parse_run(["--adaptation_method", *arguments])
    elif arguments and arguments[0] == "sweep":
        assert cli.configs_of(cli.read_sweep(Path(arguments[1])), arguments[2:])
    elif arguments and arguments[0] in SUBCOMMANDS:
        cli.parse(SUBCOMMANDS[arguments[0]], arguments[1:])
    else:
        cli.parse_run(arguments)


def test_commands_are_found() -> None:
    found = {page for page, _ in commands()}
    assert {"README.md", "docs/quickstart.md", "docs/command_line.md"} <= found


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


def choices(hint: object) -> tuple[str, ...]:
    """The values of a Literal, wherever it stands in a type."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return tuple(choice for part in typing.get_args(hint) for choice in choices(part))


def exit_codes(text: str) -> dict[str, str]:
    """The rows of a table of exit codes."""
    return dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
