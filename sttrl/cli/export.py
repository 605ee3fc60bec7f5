"""The command ``export``: a run as tables, as logs of inspect_ai, or on the hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sttrl.cli.parsing import parse
from sttrl.errors import UsageError

if TYPE_CHECKING:
    from sttrl.library.loaded_run import LoadedRun

HUB = "hub"
FOLDER = "export"
"""The subfolder of a run folder for exports without --out."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a run in a format of other programs, or push it to the hub; docs/export.md explains files and columns."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, finished or not."""
    to: Literal["inspect", "csv", "parquet", "hub"]
    """inspect: a log of each policy for inspect_ai. csv, parquet: a table of problems and one of samples.
    hub: predictions as a data set, and adapters as a model, with cards that have the measured table."""
    out: Path | None = None
    """The folder for the files. Unset: RUN/export/<format>. Not for hub."""
    data_dir: Path | None = None
    """Where named data sets are looked for first (for questions and labels)."""
    repo_id: str | None = None
    """hub: the name of both repositories, ORGANISATION/NAME."""
    private: bool = True
    """hub: whether a new repository is private."""
    token: str | None = None
    """hub: the token. Unset: HF_TOKEN, or that of `hf auth login`."""
    commit_message: str | None = None
    """hub: the message of the commits."""
    path_in_repo: str = ""
    """hub: a folder in the repositories."""
    branch: str | None = None
    """hub: a branch, which is made if need be."""


OF_HUB = ("repo_id", "private", "token", "commit_message", "path_in_repo", "branch")


def export_command(arguments: Sequence[str]) -> None:
    """``export RUN --to FORMAT``"""
    chosen = parse(ExportArguments, arguments[1:], command="export")
    check_flags(chosen)
    from sttrl.library.loaded_run import load_run

    run = load_run(chosen.run, chosen.data_dir)
    if chosen.to == HUB:
        push(run, chosen)
    else:
        from sttrl.export.formats import FORMATS

        for file in FORMATS[chosen.to](run, chosen.out or chosen.run / FOLDER / chosen.to):
            print(file)
    say_what_is_missing(run)


def check_flags(chosen: ExportArguments) -> None:
    """Raises `UsageError` for a flag that would do nothing, and for the hub without a repository."""
    unused = ("out",) if chosen.to == HUB else OF_HUB
    for field in dataclasses.fields(chosen):
        if field.name in unused and getattr(chosen, field.name) != field.default:
            raise UsageError(f"--{field.name} does nothing with --to {chosen.to}.", "Leave it out.")
    if chosen.to == HUB and chosen.repo_id is None:
        raise UsageError("--to hub needs --repo_id.", "Give ORGANISATION/NAME.")


def push(run: LoadedRun, chosen: ExportArguments) -> None:
    """Push to the hub, and print where it is now."""
    from sttrl.data.upload import Destination
    from sttrl.export.hub import push_run

    pushed = push_run(run, Destination(**{name: getattr(chosen, name) for name in OF_HUB}))
    for files, what in ((pushed.predictions, "predictions"), (pushed.adapters, "adapters")):
        if files is not None:
            print(f"{what}: {len(files.files)} files are at {files.url}")
    if pushed.adapters is None:
        print("adapters: the run has kept none in PEFT's layout (--save_adapters with --lora_rank above 0 keeps them)")


def say_what_is_missing(run: LoadedRun) -> None:
    """Print why there are no labels, and what is withheld."""
    from sttrl.export.published import WITHHELD

    if run.remark is not None:
        print(f"no labels: {run.remark}")
    if run.withheld:
        print(WITHHELD)
