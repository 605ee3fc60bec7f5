"""The subcommands with which a run is read: report, compare_to_paper and view."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sttrl.cli.parsing import parse
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Print the tables of finished or unfinished runs again, from their journals; several runs stand side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; with --halves also folders of sweeps."""
    data_dir: Path | None = None
    """Where named data sets are looked for first (for the labels)."""
    halves: bool = False
    """Choose the best policy or vote of all runs on one half of the questions, and judge it on the other half, against the confidence vote
    with the same tokens."""


@dataclass(frozen=True, kw_only=True)
class ViewArguments:
    """Show runs on a page for a browser on this machine: questions, votes, every sample, side by side, while a run goes on too."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, finished or not, or the folder of one sweep."""
    port: int = 8765
    """The port of 127.0.0.1 on which the page is; 0: a free one."""
    out: Path | None = None
    """Write the page into this file instead, with all that it shows, and end."""
    data_dir: Path | None = None
    """Where named data sets are looked for first (for questions and labels)."""


@dataclass(frozen=True, kw_only=True)
class CompareToPaperArguments:
    """Print runs beside the numbers that papers have published for them, and every setting in which they differ from the published run."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, finished or not."""
    data_dir: Path | None = None
    """Where named data sets are looked for first (for the labels)."""


def report_command(arguments: Sequence[str]) -> None:
    """``report RUN...``"""
    chosen = parse(ReportArguments, arguments[1:], command="report")
    if not chosen.runs:
        raise UsageError("report needs a run folder.", "Give one or more folders under outputs/.")
    from sttrl.engine.pieces import pieces_of
    from sttrl.report.recursion import is_training, report_training
    from sttrl.report.runs import report_runs

    if chosen.halves:
        from sttrl.sweep.halves import report_halves

        print(report_halves(chosen.runs, chosen.data_dir))
    elif all(map(is_training, chosen.runs)):
        print("\n\n".join(f"{folder}\n{report_training(folder)}" for folder in chosen.runs))
    else:
        print(report_runs(chosen.runs, chosen.data_dir, pieces_of))


def compare_to_paper_command(arguments: Sequence[str]) -> None:
    """``compare_to_paper RUN...``"""
    chosen = parse(CompareToPaperArguments, arguments[1:], command="compare_to_paper")
    if not chosen.runs:
        raise UsageError("compare_to_paper needs a run folder.", "Give one or more folders under outputs/.")
    from sttrl.report.published import compare_to_papers

    print(compare_to_papers(chosen.runs, chosen.data_dir))


def view_command(arguments: Sequence[str]) -> None:
    """``view RUN...``: a server of a page for this machine, until it is interrupted; with ``--out`` a file instead."""
    chosen = parse(ViewArguments, arguments[1:], command="view")
    if not chosen.runs:
        raise UsageError("view needs a run folder.", "Give one or more folders under outputs/, or the folder of a sweep.")
    from sttrl.engine.pieces import pieces_of
    from sttrl.report.recursion import is_training
    from sttrl.report.view.sweeps import check_folders

    if trained := [folder for folder in chosen.runs if is_training(folder)]:
        raise UsageError(f"{trained[0]} is a training of a recursive model.", "`report` writes its page, report.html.")
    check_folders(chosen.runs)
    if chosen.out is not None:
        from sttrl.report.runs import write_page

        write_page(chosen.runs, chosen.out, chosen.data_dir, pieces_of)
        print(chosen.out)
        return
    from sttrl.report.view.server import HOST, RunServer, bound, serve

    server = RunServer(chosen.runs, chosen.data_dir, pieces_of)
    server.check()
    with bound(chosen.port) as listening:
        print(f"http://{HOST}:{listening.getsockname()[1]}/ shows {server.title}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serve(server, listening)
