"""The command line: flags made by tyro from the dataclasses, the subcommands, and one line and an exit code for every error."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sttrl
from sttrl.cli import completion
from sttrl.cli.arguments import DataArguments, EnvArguments, MergeArguments, PoolArguments, ScoreArguments, ShrinkArguments, SweepArguments
from sttrl.cli.export import ExportArguments as ExportArguments
from sttrl.cli.export import export_command
from sttrl.cli.parsing import config_file, parse
from sttrl.cli.presets import PresetsArguments as PresetsArguments
from sttrl.cli.presets import presets_command
from sttrl.cli.serve import serve_command
from sttrl.cli.trm import trm_command
from sttrl.cli.view import CompareToPaperArguments as CompareToPaperArguments
from sttrl.cli.view import ReportArguments as ReportArguments
from sttrl.cli.view import ViewArguments as ViewArguments
from sttrl.cli.view import compare_to_paper_command, report_command, view_command
from sttrl.config import RunConfig, field_names
from sttrl.config.arc import SELECTION
from sttrl.config.help_view import short_view
from sttrl.config.packaged import CONFIGS, settings_file
from sttrl.config.template import template_settings
from sttrl.config.yaml_settings import FileSettings, read_yaml
from sttrl.errors import JournalError, QuestionsFailedError, SttrlError, UsageError, disk_fault
from sttrl.sweep.axes import Sweep, SweepRun, read_sweep

if TYPE_CHECKING:
    from sttrl.data import Table
    from sttrl.report.runs import RunReport

INTERRUPTED = 130
DESCRIPTION = """Adapt a model to each question of a data set, without labels, and say what it gained.

Subcommands: report RUN... (tables again from the journal, runs side by side), compare_to_paper RUN... (runs beside published
numbers), view RUN... (a page on which to read questions and samples, while a run goes on too), sweep FILE (many runs from a file of axes),
data D (show and check a data set), finetune (train one policy on whole data sets of puzzles, before test time), score SUBMISSION SOLUTIONS
(an ARC submission), pool RUN... (select from the candidates of several ARC runs), shrink M (cut a model's vocabulary to what a codec for
grids needs), merge RUN_OR_ADAPTER (write a model folder with an adapter in its weights), export RUN (tables, logs of inspect_ai, or the
hub), serve (an endpoint with OpenAI's API that adapts to each request), trm COMMAND (the tiny recursive model), presets (the published
methods that --preset knows), env (versions and devices).
Each has a --help of its own; --version prints the version.
Exit codes: 0 done, 2 usage, 3 data, 4 engine, 5 some questions failed or diverged, 130 interrupted."""

SHORT = "These are the settings that most people need; --help_all shows all."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        COMMANDS.get(arguments[0] if arguments else "", run_command)(arguments)
    except SttrlError as error:
        return failed(error)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe (head, say) has closed it: discard the output that is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2 * bool(end.code)
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        place = fault.filename or "to a disk"
        return failed(JournalError(f"Cannot write {place}: {fault.strerror}.", "Make room, and run the same command again."))
    return 0


def failed(error: SttrlError) -> int:
    """Say what is wrong, and return the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def run_command(arguments: Sequence[str]) -> None:
    """The default command: a run."""
    if "--version" in arguments:
        print(f"sttrl {sttrl.__version__}")
    elif completion.asked_for(arguments):
        completion.complete(arguments)
    else:
        run(parse_run(arguments))


def run(config: RunConfig) -> None:
    """Do the questions that are not finished, then print the table. Raises `QuestionsFailedError` if questions failed."""
    started = time.perf_counter()
    from sttrl.engine.pieces import pieces_of
    from sttrl.ledger.folder import run_folder
    from sttrl.report.kinds import POOLS
    from sttrl.report.runs import report_run
    from sttrl.run.attempt import carry_out
    from sttrl.run.plan import make_plan
    from sttrl.run.retry import pooled_folder, retry_of, share_of
    from sttrl.run.screen import Screen
    from sttrl.run.workshop import Workshop

    with Screen() as screen:
        plan = make_plan(config, screen.say)
        with Workshop(screen.say) as workshop:
            carry_out(plan, workshop, screen, started)
            again = retry_of(config, plan.done + len(plan.problems), time.perf_counter() - started)
            if again is not None:
                named = ", ".join(again.data.ids[:5])
                screen.say(f"{len(again.data.ids)} {plan.chosen.unit} are done again, of which the run is least sure: {named}")
                carry_out(make_plan(again, screen.say), workshop, screen)
            elif share_of(config) is not None:
                screen.say(f"nothing is done again: {plan.chosen.unit} or no time are left")
    try:
        finish(report_run(plan.folder, data=plan.chosen.data, find_pieces=pieces_of), plan.folder)
    finally:
        if again is not None:
            print()
            print(POOLS[plan.chosen.kind]((plan.folder, run_folder(again)), pooled_folder(config), config))


def finish(report: RunReport, folder: Path) -> None:
    """Print the table of a run. Raises `QuestionsFailedError` if questions failed."""
    print(f"{report.table}\n{report.pictures}\nrun folder: {folder}", flush=True)
    counts = report.summary["questions"]
    complain(counts["total"] - counts["done"], counts["total"], f"{folder}/results.jsonl and {folder}/logs")


def complain(bad: int, total: int, where: str) -> None:
    """Raises `QuestionsFailedError` if ``bad``, the number of failed questions, is not 0."""
    if bad:
        raise QuestionsFailedError(f"{bad} of {total} questions failed or diverged; they keep the base's answer.", f"{where} say why.")


def parse_run(arguments: Sequence[str], command: str = "") -> RunConfig:
    """The configuration: defaults, then a preset, then the YAML file of ``--config``, then flags. Raises `UsageError`."""
    if "--help_all" in arguments:
        return parse(RunConfig, ["--help"], command, description=DESCRIPTION)
    if not {"--help", "-h"}.isdisjoint(arguments):
        return parse(short_view(), ["--help"], command, description=f"{DESCRIPTION}\n{SHORT}")
    file = config_file(arguments)
    settings = {} if file is None else read_yaml(file)
    return RunConfig.of(**{**settings, **given_by(arguments, settings)})


def given_by(arguments: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that flags give, over those of a file. Raises `UsageError`."""
    config = parse(RunConfig, arguments, description=DESCRIPTION, default=FileSettings.of(**{**settings, "preset": None}))
    return {name: config.setting(name) for name in flag_names(arguments) if name in field_names()}


def configs_of(sweep: Sweep, arguments: Sequence[str]) -> tuple[RunConfig, ...]:
    """The configuration of every run of a sweep; flags win over its file. Raises `UsageError` naming the run or the flag."""
    varied = {name for run in sweep.runs for name in run.values}
    for name in flag_names(arguments):
        if name in varied:
            raise UsageError(f"--{name} with the sweep {sweep.name}: its runs differ in it.", "Change the sweep's file.")
        if name in ("run_name", "config"):
            raise UsageError(f"--{name} with the sweep {sweep.name}: its runs have names and settings.", "Leave it out.")
    flags = given_by(arguments, {})  # parsed once: it takes half a second
    configs = tuple(config_of(run, sweep, flags) for run in sweep.runs)
    if any(config.arc.retry_unsure is not None for config in configs):
        raise UsageError("--retry_unsure does nothing in a sweep.", "Leave it out; runs with other seeds can be pooled.")
    return configs


def config_of(run: SweepRun, sweep: Sweep, flags: Mapping[str, Any]) -> RunConfig:
    """The configuration of one run of a sweep: its folder is <output_dir>/<sweep>/<run>. ``adapters`` may be the name of another run."""
    try:
        config = RunConfig.of(**{**run.settings, **flags})
    except UsageError as error:
        raise UsageError(f"run {run.name}: {error.message}", error.hint) from error
    folder, adapters = config.run.output_dir / sweep.name, config.stored.adapters
    if adapters is not None and str(adapters) in {other.name for other in sweep.runs}:
        config = config.changed(adapters=folder / adapters)
    return config.changed(output_dir=folder, run_name=run.name)


def flag_names(arguments: Sequence[str]) -> list[str]:
    """The names of the settings that flags set, in order: ``seed`` for ``--seed=3``, ``continuous`` for ``--no-continuous``."""
    names = [flag[2:].split("=")[0].replace("-", "_") for flag in arguments if flag.startswith("--")]
    return [name if name in field_names() else name.removeprefix("no_") for name in names]


def data_command(arguments: Sequence[str]) -> None:
    """``data D``"""
    chosen = parse(DataArguments, arguments[1:], command="data")
    from sttrl.arc.datasets import is_arc

    if is_arc(chosen.dataset):
        show_tasks(chosen)
    else:
        show_questions(chosen)


def show_questions(chosen: DataArguments) -> None:
    """``data D`` of text questions."""
    from sttrl.data import SourceSpec, read_table
    from sttrl.questions import describe

    spec = SourceSpec(
        dataset=chosen.dataset,
        data_dir=chosen.data_dir,
        question_column=chosen.question_column,
        answer_column=chosen.answer_column,
        id_column=chosen.id_column,
        answer_kind=chosen.answer_kind,
        on_bad_row=chosen.on_bad_row,
    )
    table = read_table(spec)
    print(describe(table, whole_prompt(chosen, table)))


def show_tasks(chosen: DataArguments) -> None:
    """``data D`` of ARC tasks. Raises `UsageError` for a flag that is for questions only, and DataError if the tasks have faults."""
    for field in dataclasses.fields(chosen):
        if field.name not in ("dataset", "data_dir") and getattr(chosen, field.name) != field.default:
            raise UsageError(f"--{field.name} does nothing for the ARC tasks of {chosen.dataset}.", "Leave it out.")
    from rich.console import Console

    from sttrl.arc.check import check
    from sttrl.arc.sources import ArcSpec

    found = check(ArcSpec(dataset=chosen.dataset, data_dir=chosen.data_dir), Console())
    print(found.text)
    found.complain()


def whole_prompt(chosen: DataArguments, table: Table) -> str | None:
    """The prompt of the first question as the chosen model sees it; None without a model, or where questions are not shown."""
    settings = template_settings(chosen.chat_template_kwargs)
    for name in ("prompt_format", "system_prompt", "chat_template_kwargs", "trust_remote_code"):
        if chosen.model is None and getattr(chosen, name):
            raise UsageError(f"--{name} does nothing without --model.", "Give the model whose prompt is to be shown.")
    if chosen.model is None or not table.dataset.printable:
        return None
    from sttrl.data import questions
    from sttrl.questions import build_problem
    from sttrl.run.plan import tokenizer_of

    tokenizer = tokenizer_of(chosen.model, chosen.trust_remote_code)
    problem = build_problem(
        questions(table, limit=1)[0],
        tokenizer,
        instruction=table.dataset.instruction,
        prompt_format=chosen.prompt_format,
        max_prompt_tokens=sys.maxsize,
        system=chosen.system_prompt,
        template_settings=settings,
        file=table.source,
    )
    return str(tokenizer.decode(problem.prompt_T))


def score_command(arguments: Sequence[str]) -> None:
    """``score SUBMISSION SOLUTIONS``"""
    chosen = parse(ScoreArguments, arguments[1:], command="score")
    from sttrl.arc.score_files import marc_text, read_answers, read_levels, read_solutions, score_text

    truths = read_solutions(chosen.solutions)
    given = read_answers(chosen.submission, truths)
    levels = None if chosen.levels is None else read_levels(chosen.levels, truths)
    other = None if chosen.compare is None else read_answers(chosen.compare, truths)
    parts = [score_text(given, truths)]
    parts += [marc_text(given, truths, levels)] if chosen.detail or levels is not None else []
    if other is not None and chosen.compare is not None:
        from sttrl.report.submissions import comparison_text

        parts.append(comparison_text(chosen.submission, given, chosen.compare, other, truths))
    print("\n\n".join(parts))


def pool_command(arguments: Sequence[str]) -> None:
    """``pool RUN... --out DIR``"""
    chosen = parse(PoolArguments, arguments[1:], command="pool")
    if not chosen.runs:
        raise UsageError("pool needs a run folder.", "Give one or more folders under outputs/, or marc's all_predictions.json.")
    if chosen.selection is not None:
        SELECTION.check("selection", chosen.selection)
    show_pool(chosen.runs, chosen.out, selection=chosen.selection, stage=chosen.stage, dataset=chosen.dataset, data_dir=chosen.data_dir)


def show_pool(runs: Sequence[Path], out: Path, **chosen: Any) -> None:
    """Select from the candidates of several runs, and print the table."""
    from sttrl.arc.pool_files import write_pool
    from sttrl.report.pool import pool_text

    print(pool_text(write_pool(runs, out=out, **chosen)))


def env_command(arguments: Sequence[str]) -> None:
    """``env``"""
    parse(EnvArguments, arguments[1:], command="env")
    from sttrl.engine.environment import check_packages, choose_device, choose_dtype, describe_environment

    found = describe_environment()
    packages = found.pop("packages")
    for name, value in {**found, **packages}.items():
        print(f"{name:14} {value if value is not None else 'not installed'}")
    device = choose_device("auto")
    print(f"{'configs':14} {CONFIGS}")
    print(f"{'engine':14} verl + Ray + vLLM on {device}, in {choose_dtype('auto', device)}")
    check_packages()


def sweep_command(arguments: Sequence[str]) -> None:
    """``sweep FILE [flags]``"""
    if {"-h", "--help"} & set(arguments):
        parse(SweepArguments, ["--help"], command="sweep")
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise UsageError(
            "sweep needs a YAML file of axes.", "Give one, such as configs/sweeps/methods_x_votes.yaml; docs/sweeps.md has the format."
        )
    file = settings_file(arguments[1])
    sweep = read_sweep(file)
    configs = configs_of(sweep, arguments[2:])
    from sttrl.engine.pieces import pieces_of
    from sttrl.run.screen import Screen
    from sttrl.sweep.runs import run_sweep

    with Screen() as screen:
        report = run_sweep(sweep.name, configs, file, screen, sweep.baseline, pieces_of)
    print(f"{report.table}\n{report.pictures}\nsweep folder: {report.folder}", flush=True)
    complain(report.bad, report.total, str(report.folder))


def shrink_command(arguments: Sequence[str]) -> None:
    """``shrink MODEL --codec C --out DIR``"""
    chosen = parse(ShrinkArguments, arguments[1:], command="shrink")
    from sttrl.arc.codecs.registry import check_codec, codec_for
    from sttrl.arc.codecs.vocabulary import small_vocabulary
    from sttrl.engine.model_files import check_target
    from sttrl.engine.models import load_tokenizer, model_folder
    from sttrl.engine.shrink import shrink_model

    check_codec(chosen.codec)
    check_target(chosen.out)
    folder = model_folder(chosen.model)
    tokenizer = load_tokenizer(folder)
    small = small_vocabulary(chosen.codec, codec_for(chosen.codec, tokenizer), tokenizer)
    shrink_model(folder, chosen.out, untie=chosen.untie, **vars(small))
    print(f"{chosen.out}: {len(small.token_V)} tokens instead of {len(tokenizer)}")
    if made_up := small.made_up():
        print(f"no single tokens of the model, so their embeddings are means of others: {' '.join(map(repr, made_up))}")


def finetune_command(arguments: Sequence[str]) -> None:
    """``finetune [flags]``: a run of the method of that name."""
    run(parse_run(["--adaptation_method", "finetune", *arguments[1:]], command="finetune"))


def merge_command(arguments: Sequence[str]) -> None:
    """``merge RUN_OR_ADAPTER --out DIR``"""
    chosen = parse(MergeArguments, arguments[1:], command="merge")
    from sttrl.engine.merged import merge

    print(merge(chosen.source, chosen.out, chosen.model))


COMMANDS = {
    "finetune": finetune_command,
    "report": report_command,
    "compare_to_paper": compare_to_paper_command,
    "view": view_command,
    "data": data_command,
    "score": score_command,
    "pool": pool_command,
    "shrink": shrink_command,
    "merge": merge_command,
    "export": export_command,
    "trm": trm_command,
    "presets": presets_command,
    "env": env_command,
    "sweep": sweep_command,
    "serve": serve_command,
}
