"""The command line: tyro over the dataclasses, subcommands beside the run, one line and an exit code for every error."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from sttrl.config import RunConfig, field_names
from sttrl.errors import SttrlError, UsageError

INTERRUPTED = 130
DESCRIPTION = """Adapt a model to each question of a data set, without labels, and say what it gained.

Subcommands: report RUN... (tables again from the journal), data D (show and check a data set), env (versions and devices).
Exit codes: 0 done, 2 usage, 3 data, 4 engine, 5 some questions failed or diverged, 130 interrupted."""

BELOW_THE_ERROR = ("Perhaps you meant:", "Got errors:", "Argument helptext:", "For full helptext,")
"""Where, in a box of tyro's, the error ends and help begins."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Print the tables of finished or unfinished runs again, from their journals; several runs stand side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    data_dir: Path | None = None
    """Where named data sets are looked for first (for the labels)."""


@dataclass(frozen=True, kw_only=True)
class DataArguments:
    """Show and check a data set: where it is, its columns, how many rows and labels, what looks wrong."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A named data set, a file, or hf:org/name[:config][:split]."""
    data_dir: Path | None = None
    """Where named data sets are looked for first."""
    question_column: str | None = None
    """Column of the question."""
    answer_column: str | None = None
    """Column of the label."""
    id_column: str | None = None
    """Column of the id."""
    answer_kind: Literal["math", "number", "choice"] | None = None
    """How answers are read, for data sets without a name."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be used: stop with its place, or skip and count it."""


@dataclass(frozen=True, kw_only=True)
class EnvArguments:
    """Show versions, devices, and which engine would run here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        COMMANDS.get(arguments[0] if arguments else "", run_command)(arguments)
    except SttrlError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has seen enough; what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    return 0


def run_command(arguments: Sequence[str]) -> None:
    """The default command: a run."""
    config = parse_run(arguments)
    from sttrl.launch import run

    run(config)


def parse_run(arguments: Sequence[str]) -> RunConfig:
    """The configuration: defaults, then the YAML file of ``--config``, then flags. Raises `UsageError`."""
    file = config_file(arguments)
    return parse(RunConfig, [*(flags_of(file) if file is not None else ()), *arguments], description=DESCRIPTION)


def config_file(arguments: Sequence[str]) -> Path | None:
    """The file after ``--config``, before anything else is parsed."""
    for flag, value in zip(arguments, [*arguments[1:], None], strict=False):
        if flag == "--config" and value is not None:
            return Path(value)
        if flag.startswith("--config="):
            return Path(flag.removeprefix("--config="))
    return None


def flags_of(file: Path) -> list[str]:
    """The settings of a YAML file as flags, so that a wrong type is an error there and on the command line alike."""
    defaults, flags = RunConfig(), []
    for name, value in read_yaml(file).items():
        default = getattr(defaults, name)
        is_list = isinstance(value, list)
        if isinstance(value, dict) or isinstance(value, bool) != isinstance(default, bool) or (is_list and not isinstance(default, tuple)):
            raise UsageError(f"--config {file}: {name} cannot be {value!r}.", f"An example is {name}: {yaml_text(default)}; see --help.")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no_{name}")
        else:
            flags += [f"--{name}", *map(str, value)] if is_list else [f"--{name}={value}"]
    return flags


def read_yaml(file: Path) -> dict[str, Any]:
    """Settings of a YAML file that are not null; an unknown name is answered by the nearest known one."""
    import yaml

    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file} cannot be read: {error}.", "Give an existing YAML file.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--config {file} is not YAML: {' '.join(str(error).split())}.", "Write one `name: value` a line.") from error
    if not isinstance(settings, dict):
        raise UsageError(f"--config {file} holds no settings.", "Write one `name: value` a line.")
    settings = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in settings.keys() - set(field_names()):
        near = difflib.get_close_matches(name, field_names(), 1)
        raise UsageError(f"--config {file}: there is no setting {name!r}.", f"Did you mean {near[0]!r}?" if near else "See --help.")
    return {name: value for name, value in settings.items() if value is not None}


def yaml_text(default: object) -> str:
    """A default as YAML has it."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def parse(kind: type[T], arguments: Sequence[str], prog: str = "main.py", **options: Any) -> T:
    """tyro, with the project's conventions. Raises `UsageError` with what tyro says, in one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: T = tyro.cli(
                kind, args=list(arguments), prog=prog, use_underscores=True, config=(tyro.conf.AvoidSubcommands,), **options
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise complaint(said.getvalue()) from None
    return parsed


def complaint(box: str) -> UsageError:
    """The box that tyro draws around an error, as one line: the error, and the flag that was meant or how to write it."""
    rows = [row for line in box.splitlines() if (row := line.strip("│╭╮╰╯─ ")).strip("-")][1:]
    start = next((number for number, row in enumerate(rows) if row.startswith(BELOW_THE_ERROR)), len(rows))
    flags = [row.split(" (")[0] for row in rows[start:] if row.startswith("--")]
    meant = rows[start : start + 1] == [BELOW_THE_ERROR[0]]
    hint = f"Did you mean {' or '.join(flags)}? " if flags and meant else f"Write {flags[0]}. " if flags else ""
    return UsageError(f"{' '.join(rows[:start]).rstrip('.')}.", f"{hint}See --help.")


def report_command(arguments: Sequence[str]) -> None:
    """``report RUN...``"""
    chosen = parse(ReportArguments, arguments[1:], prog="main.py report")
    if not chosen.runs:
        raise UsageError("report needs a run folder.", "Give one or more folders under outputs/.")
    from sttrl.report.runs import report_runs

    print(report_runs(chosen.runs, chosen.data_dir))


def data_command(arguments: Sequence[str]) -> None:
    """``data D``"""
    chosen = parse(DataArguments, arguments[1:], prog="main.py data")
    from sttrl.data import SourceSpec, describe, read_table

    spec = SourceSpec(
        dataset=chosen.dataset,
        data_dir=chosen.data_dir,
        question_column=chosen.question_column,
        answer_column=chosen.answer_column,
        id_column=chosen.id_column,
        answer_kind=chosen.answer_kind,
        on_bad_row=chosen.on_bad_row,
    )
    print(describe(read_table(spec)))


def env_command(arguments: Sequence[str]) -> None:
    """``env``"""
    parse(EnvArguments, arguments[1:], prog="main.py env")
    from sttrl.engine.environment import check_packages, choose_device, describe_environment

    found = describe_environment()
    packages = found.pop("packages")
    for name, value in {**found, **packages}.items():
        print(f"{name:14} {value if value is not None else 'not installed'}")
    device = choose_device("auto")
    print(f"{'engine':14} verl + Ray + vLLM on {device}")
    check_packages()


COMMANDS = {"report": report_command, "data": data_command, "env": env_command}
