"""Shell completion: tyro writes the script for bash or zsh, with the flags of every subcommand."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Union

import tyro

from sttrl.cli import arguments as own
from sttrl.cli import trm_arguments as trm
from sttrl.cli.export import ExportArguments
from sttrl.cli.presets import PresetsArguments
from sttrl.cli.serve import ServeArguments
from sttrl.cli.view import CompareToPaperArguments, ReportArguments, ViewArguments
from sttrl.config import CHOICES, RunConfig
from sttrl.errors import UsageError

SHELLS: Final = ("bash", "zsh")
PRINT, WRITE = "--tyro-print-completion", "--tyro-write-completion"
NOT_PARSED: Final = {"--help_all": "show all settings", "--version": "print the version"}
SPEC: Final = "COMPLETION_SPEC = "
"""How the line of tyro's script begins that holds the table of flags."""
HOW: Final = f"Write {PRINT} SHELL, or {WRITE} SHELL FILE; SHELL is one of {', '.join(SHELLS)}."


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a tiny recursive model; every setting is a flag, too."""

    config: Path | None = None
    """A YAML file of settings, or the name of one that comes with sttrl."""


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for a script of completions."""
    return bool(arguments) and arguments[0].replace("_", "-") in (PRINT, WRITE)


def complete(arguments: Sequence[str]) -> None:
    """Print the script of a shell, or write it to a file. Raises `UsageError` for a shell that tyro does not know."""
    writes = arguments[0].replace("_", "-") == WRITE
    if len(arguments) != 2 + writes:
        raise UsageError(f"{arguments[0]} does not have {'a shell and a file' if writes else 'one shell'} behind it.", HOW)
    if arguments[1] not in SHELLS:
        raise UsageError(f"{arguments[0]}: there is no shell {arguments[1]!r}.", HOW)
    if writes and not (folder := Path(arguments[2]).expanduser().absolute().parent).is_dir():
        raise UsageError(f"{arguments[0]}: there is no folder {folder}.", "Make it, or give another file.")
    script = script_for(arguments[1])
    if writes:
        Path(arguments[2]).expanduser().write_text(script, encoding="utf-8")
    else:
        print(script, end="")


def script_for(shell: str) -> str:
    """The script of a shell, by tyro."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(program_view(), args=[PRINT, shell], prog="sttrl", use_underscores=True, config=(tyro.conf.OmitArgPrefixes,))
    lines = printed.getvalue().splitlines(keepends=True)
    return "".join(SPEC + repr(_tidied(ast.literal_eval(line[len(SPEC) :]))) + "\n" if line.startswith(SPEC) else line for line in lines)


def _tidied(spec: Any, top: bool = True) -> Any:
    """The table of flags in tyro's script, with each description on one line: a shell takes further lines for completions.

    A setting that takes a name of ours or code of one's own offers our names. The flags that tyro does not parse are added.
    """
    named = {f"--{choice.setting}": list(choice.ours) for choice in CHOICES if not choice.open}
    for option in spec["options"]:
        option["description"] = " ".join(option["description"].split())
        if (names := named.get(option["flags"][0])) and option["type"] == "path":
            option |= {"type": "choice", "choices": names}
    if top:
        spec["options"] += [{"flags": [flag], "description": said, "type": "flag"} for flag, said in NOT_PARSED.items()]
    for below in spec["subcommands"].values():
        _tidied(below, top=False)
    return spec


def program_view() -> type[Any]:
    """The whole program as one type: a run's flags, or a subcommand. It is for completion, not for parsing."""
    return _with_commands(RunConfig, commands())


def commands() -> Mapping[str, type[Any]]:
    """The arguments of each subcommand."""
    from sttrl.trm.data.commands import BUILDERS

    recursive = {
        "build": _with_commands(None, BUILDERS),
        "train": TrainArguments,
        "adapt": trm.AdaptArguments,
        "evaluate": trm.EvaluateArguments,
        "solve": trm.SolveArguments,
        "merge": trm.MergeWeightsArguments,
        "push": trm.PushArguments,
        "demo": trm.DemoArguments,
    }
    return {
        "finetune": RunConfig,
        "report": ReportArguments,
        "compare_to_paper": CompareToPaperArguments,
        "view": ViewArguments,
        "data": own.DataArguments,
        "score": own.ScoreArguments,
        "pool": own.PoolArguments,
        "shrink": own.ShrinkArguments,
        "merge": own.MergeArguments,
        "trm": _with_commands(None, recursive),
        "export": ExportArguments,
        "serve": ServeArguments,
        "presets": PresetsArguments,
        "env": own.EnvArguments,
        "sweep": _with_positional_file(),
    }


def _with_positional_file() -> type[Any]:
    """A sweep takes its file, and then the flags of a run."""
    return dataclasses.make_dataclass(
        "Sweep", [("file", Annotated[Path, tyro.conf.Positional])], bases=(RunConfig,), frozen=True, kw_only=True
    )


def _with_commands(base: type[Any] | None, named: Mapping[str, type[Any]]) -> type[Any]:
    """A dataclass with the flags of another and with one subcommand of those that are named."""
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)] for name, kind in named.items())
    command: Any = Union[kinds]  # noqa: UP007 - the members are computed
    bases = () if base is None else (base,)
    return dataclasses.make_dataclass("Program", [("command", command)], bases=bases, frozen=True, kw_only=True)
