"""The commands of the recursive model: ``trm build``, ``train``, ``adapt``, ``evaluate``, ``solve``, ``merge``, ``push`` and ``demo``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sttrl.cli.parsing import parse, program
from sttrl.cli.trm_arguments import AdaptArguments, DemoArguments, EvaluateArguments, MergeWeightsArguments, PushArguments, SolveArguments
from sttrl.errors import UsageError

USAGE = """usage: {program} trm [-h] COMMAND ...

The tiny recursive model (arXiv 2510.04871): its data sets, training, adaptation to new puzzles, evaluation.

  build arc|sudoku|maze|demo    make a data set; sudoku-tasks: Sudokus as ARC tasks, for a language model
  train [--config FILE]         train; every setting is a flag, or KEY=VALUE as in the original
  adapt CHECKPOINT DATA         adapt a checkpoint to the puzzles of a data set or to ARC tasks, and say what it gained
  evaluate CHECKPOINT DATA      evaluate a checkpoint
  solve CHECKPOINT TASK.json    adapt to one new task, and print the answers
  merge CHECKPOINT --out FILE   write a checkpoint with its LoRA in the weights
  push RUN ORG/NAME             upload a checkpoint with a model card
  demo                          Sudoku 4x4 from nothing, then adaptation to rules never seen

Each has a --help of its own. Several processes: torchrun --nproc-per-node N -m sttrl.trm train ..."""


def trm_command(arguments: Sequence[str]) -> None:
    """``trm COMMAND ...``"""
    given = list(arguments[1:])
    if not given or given[0] in ("-h", "--help"):
        print(USAGE.format(program=program()))
        if not given:
            raise UsageError("trm needs a command.", f"Choose one of {', '.join(COMMANDS)}.")
        return
    if given[0] not in COMMANDS:
        raise UsageError(f"trm has no command {given[0]!r}.", f"Choose one of {', '.join(COMMANDS)}.")
    COMMANDS[given[0]](given[1:])


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this process prints results: the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def build(arguments: Sequence[str]) -> None:
    """``trm build KIND``"""
    from sttrl.trm.data.commands import BUILDERS
    from sttrl.trm.data.commands import build as build_data

    kinds = ", ".join(BUILDERS)
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {program()} trm build KIND ...\n\nKIND is one of {kinds}. Each has a --help of its own.")
        return
    if not arguments or arguments[0] not in BUILDERS:
        raise UsageError("trm build needs a kind of data set.", f"Choose one of {kinds}.")
    kind: Any = BUILDERS[arguments[0]]
    print(build_data(parse(kind, arguments[1:], command=f"trm build {arguments[0]}")))


def train(arguments: Sequence[str]) -> None:
    """``trm train [--config FILE] [settings]``"""
    from sttrl.trm.config import CONFIGS, read_config
    from sttrl.trm.config_help import help_text
    from sttrl.trm.overrides import find_config, take_config

    if {"-h", "--help"} & set(arguments):
        print(f"usage: {program()} trm train [--config FILE.yaml] [--KEY VALUE ...] [KEY=VALUE ...]\n\n{help_text()}")
        return
    name, settings = take_config(arguments)
    config = read_config(None if name is None else find_config(name, CONFIGS), settings)
    from sttrl.trm.train import train as run

    show(run(config, say))


def show(folder: Path) -> None:
    """Write the report of a run, and print its table."""
    if not is_first():
        return
    from sttrl.report.recursion import report_training

    print(f"{report_training(folder)}\nrun folder: {folder}", flush=True)


def adapt(arguments: Sequence[str]) -> None:
    """``trm adapt CHECKPOINT DATA``"""
    own, settings = split_settings(arguments)
    chosen = parse(AdaptArguments, own, command="trm adapt")
    from sttrl.trm.adapt import Wish
    from sttrl.trm.adapt import adapt as run

    adapted = run(Wish(**vars(chosen), settings=settings), say)
    if is_first():
        from sttrl.report.recursion import report_adaptation

        print(report_adaptation(adapted.folders))
        if adapted.submission is not None:
            print(f"submission: {adapted.submission}")


def evaluate(arguments: Sequence[str]) -> None:
    """``trm evaluate CHECKPOINT DATA``"""
    own, settings = split_settings(arguments)
    chosen = parse(EvaluateArguments, own, command="trm evaluate")
    from sttrl.trm.evaluate_checkpoint import evaluate_checkpoint

    show(evaluate_checkpoint(chosen.checkpoint, chosen.data, settings, say, config=chosen.config, out=chosen.out))


def solve(arguments: Sequence[str]) -> None:
    """``trm solve CHECKPOINT TASK.json``"""
    own, settings = split_settings(arguments)
    chosen = parse(SolveArguments, own, command="trm solve")
    from sttrl.arc.pictures import beside, shown
    from sttrl.trm.adapt import Wish
    from sttrl.trm.solve import solve as run

    given = {name: value for name, value in vars(chosen).items() if name != "task"}
    wish = Wish(**given, data=chosen.task, chunk=None, settings=settings)
    answers, folder = run(wish, say)
    for answer in answers if is_first() else ():
        pictures = [(f"attempt {number}", grid) for number, grid in enumerate(answer.attempts, start=1)]
        votes = ", ".join(map(str, answer.votes[: len(pictures)]))
        print(f"{answer.task}, test input {answer.number} (votes: {votes or 'none'})\n{shown(beside(pictures), sys.stdout.isatty())}\n")
    if is_first():
        print(f"run folder: {folder}")


def merge(arguments: Sequence[str]) -> None:
    """``trm merge CHECKPOINT --out FILE``"""
    chosen = parse(MergeWeightsArguments, arguments, command="trm merge")
    from sttrl.trm.checkpoints import merge_checkpoint

    print(merge_checkpoint(chosen.checkpoint, chosen.out, config=chosen.config))


def push(arguments: Sequence[str]) -> None:
    """``trm push RUN ORG/NAME``"""
    chosen = parse(PushArguments, arguments, command="trm push")
    from sttrl.data.upload import Destination
    from sttrl.trm.push import push as run

    options = {name: value for name, value in vars(chosen).items() if name not in ("run", "repo")}
    pushed = run(chosen.run, Destination(repo_id=chosen.repo, **options))
    print(f"{len(pushed.files)} files are at {pushed.url}")


def demo(arguments: Sequence[str]) -> None:
    """``trm demo``"""
    chosen = parse(DemoArguments, arguments, command="trm demo")
    from sttrl.report.recursion import report_demo
    from sttrl.trm.demo import run_demo

    runs = run_demo(chosen.out, chosen.seed, say)
    shown = {"Sudoku 4x4: grids never seen": runs.sudoku, "20 rules: inputs never seen": runs.rules}
    print(report_demo(shown, {str(mode): folder for mode, folder in runs.adapted.items()}))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "build": build,
    "train": train,
    "adapt": adapt,
    "evaluate": evaluate,
    "solve": solve,
    "merge": merge,
    "push": push,
    "demo": demo,
}


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and the settings of the training, which are written KEY=VALUE."""
    settings = [word for word in arguments if "=" in word and not word.startswith("-") and not Path(word).exists()]
    return [word for word in arguments if word not in settings], settings
