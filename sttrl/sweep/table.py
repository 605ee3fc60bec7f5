"""From the run folders of a sweep to its report: runs that differ in their seed only are one row, and rows stand beside each other.

A question's numbers are averaged over the seeds first: it stays the unit of a row's intervals, however many seeds there are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from sttrl.config import RunConfig, has_effect, to_plain
from sttrl.ledger.files import write_json, write_text
from sttrl.ledger.folder import ENVIRONMENT, FREE
from sttrl.ledger.journal import read_lines
from sttrl.report.layout import NOTHING, aligned, broken, p_value_or_nothing, share_or_nothing, with_interval
from sttrl.report.metrics import QuestionScore, RowName, by_first_vote, score_questions
from sttrl.report.runs import report_run
from sttrl.report.statistics import interval_of_gain, p_value_of_gain
from sttrl.sweep.pictures import write_pictures

SWEEP_SCHEMA: Final = 1
SWEEP_WIDTH: Final = 120
"""Columns of text that the table of a sweep has at most."""
_PLACES: Final = frozenset({"output_dir", "run_name", "config", "track", "data_dir"})
_LEADING: Final = ("dataset", "model", "adaptation_method", "voting_function")
_HEADINGS: Final = {"adaptation_method": "method", "voting_function": "voting"}
_LONGEST_CELL: Final = 28
_ACCURACIES: Final = ("base", "vote", "conf.", "adapted", "gain", "p", "maj@k")
_COSTS: Final = ("tokens", "seconds", "seeds", "failed")
_FIRST_VOTES: Final = ("right", "base", "adapted", "wrong", "base", "adapted")
_LEGEND: Final = (
    "base, adapted, gain: mean@k, a question's over its seeds, then over the questions; with a 95 % interval by question. "
    "p: permutation test of the gain. vote, conf.: maj@k of the base with the tokens that adapting took, by majority and by confidence. "
    "maj@k: adapted. tokens (sampled and trained on), seconds (wall, without start-up): a question. failed: questions of all seeds. "
    "right, wrong: questions of all seeds whose first vote elected the right answer, or another or none, and their mean@k. "
    f"{NOTHING}: there is no such number; a setting that is left to the method, or has no effect on it."
)


@dataclass(frozen=True)
class SweepReport:
    """The table of a sweep, the folder its files are in, and how many of all questions did not end as done."""

    table: str
    folder: Path
    bad: int
    total: int


@dataclass(frozen=True, kw_only=True)
class SweepScore:
    """What one run found, or several that differ in their seed only, in the order of the table.

    Shares are None without labels, those of adapting for runs that do not adapt. ``questions`` are distinct, ``finished``
    counts them in every run. ``seconds_per_question`` is None where no attempt came to its end.
    """

    base_mean: float | None
    vote_majority: float | None
    vote_confidence: float | None
    adapted_mean: float | None
    gain_mean: float | None
    gain_low: float | None
    gain_high: float | None
    p_value: float | None
    adapted_majority: float | None
    right_first: int
    right_base: float | None
    right_adapted: float | None
    wrong_first: int
    wrong_base: float | None
    wrong_adapted: float | None
    tokens_per_question: float | None
    seconds_per_question: float | None
    questions: int
    finished: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One run of a sweep; ``timed`` of its questions were finished in an attempt whose seconds are known."""

    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    scores: Sequence[QuestionScore]
    timed: int


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """Runs that differ in their seed only. ``settings``: those that tell the row from the others; ``cells``: as they are shown."""

    settings: dict[str, Any]
    cells: tuple[str, ...]
    label: str
    runs: tuple[ScoredRun, ...]
    score: SweepScore
    by_seed: tuple[SweepScore, ...]


def report_sweep(name: str, folders: Sequence[Path], file: Path | None = None) -> SweepReport:
    """Write every run's own report and, in the folder that holds them, the sweep's: sweep.md, .json, .csv, .png and .svg.

    ``file``: what asked for the sweep. Raises `JournalError` for a folder that holds no run, and where a file cannot be written.
    """
    folder, runs = folders[0].parent, [_scored(each) for each in folders]
    configs = [run.config for run in runs]
    rows = sweep_rows(runs, tuple(setting for setting in differing_settings(configs) if setting != "seed"))
    table, common = sweep_table(name, rows), _common(configs)
    write_text(folder / "sweep.md", _page(name, table, len(runs), common, _environment(folders[0]), file))
    write_json(folder / "sweep.json", _numbers(name, rows, common))
    write_text(folder / "sweep.csv", _lines(rows))
    write_pictures(folder, name, rows)
    return SweepReport(table, folder, sum(row.score.failed for row in rows), sum(row.score.finished for row in rows))


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings that tell runs apart, ``seed`` among them, the slowest first as the axes of a file have them.

    Those that say how fast, not what, count only where nothing else tells all runs apart: a sweep may go on with others.
    """
    changes = {name: sum(a.get(name) != b.get(name) for a, b in pairwise(configs)) for name in configs[0] if name not in _PLACES}
    found = [name for name in changes if len(_values(name, configs)) > 1]
    found.sort(key=lambda name: (_LEADING.index(name) if name in _LEADING else len(_LEADING), changes[name]))
    weighty = [name for name in found if name not in FREE]
    return tuple(weighty if len({_key(config, weighty) for config in configs}) == len(configs) else found)


def sweep_rows(runs: Sequence[ScoredRun], settings: Sequence[str]) -> list[SweepRow]:
    """The rows, in the order of their first runs."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(_key(run.config, settings), []).append(run)
    columns = {name: _column(name, [group[0].config for group in groups.values()]) for name in settings}
    return [_row(group, {name: cells[number] for name, cells in columns.items()}) for number, group in enumerate(groups.values())]


def score_together(runs: Sequence[ScoredRun]) -> SweepScore:
    """What runs found that differ in their seed only."""
    before_P = list(_by_question(runs, "base", "mean@k", beside="adapted").values())
    after_P = list(_by_question(runs, "adapted", "mean@k", beside="base").values())
    ends = interval_of_gain(before_P, after_P)

    def share_of(row: RowName, metric: str) -> float | None:
        return fmean(values.values()) if (values := _by_question(runs, row, metric, beside=row)) else None

    scores = [score for run in runs for score in run.scores]
    right, wrong = (by_first_vote(scores, kind) for kind in (True, False))
    finished = sum(run.summary["questions"]["total"] for run in runs)
    tokens = sum(run.summary["tokens"]["sampled"] + run.summary["tokens"]["trained"] for run in runs)
    seconds = sum(run.summary["seconds"]["total"] - run.summary["seconds"]["start_up"] for run in runs)
    return SweepScore(
        base_mean=share_of("base", "mean@k"),
        vote_majority=share_of("vote_same_tokens", "maj@k"),
        vote_confidence=share_of("confidence_same_tokens", "maj@k"),
        adapted_mean=share_of("adapted", "mean@k"),
        gain_mean=fmean(after_P) - fmean(before_P) if before_P else None,
        gain_low=None if ends is None else ends.low,
        gain_high=None if ends is None else ends.high,
        p_value=p_value_of_gain(before_P, after_P),
        adapted_majority=share_of("adapted", "maj@k"),
        right_first=right.questions,
        right_base=right.base,
        right_adapted=right.adapted,
        wrong_first=wrong.questions,
        wrong_base=wrong.base,
        wrong_adapted=wrong.adapted,
        tokens_per_question=tokens / finished if finished else None,
        seconds_per_question=seconds / timed if (timed := sum(run.timed for run in runs)) else None,
        questions=len({score.id for score in scores}),
        finished=finished,
        failed=finished - sum(run.summary["questions"]["done"] for run in runs),
    )


def sweep_table(name: str, rows: Sequence[SweepRow]) -> str:
    """The rows beside each other, at most `SWEEP_WIDTH` wide; what they cost stands below where it has no room beside."""
    runs = [run for row in rows for run in row.runs]
    counts = dict.fromkeys(end(row.score.questions for row in rows) for end in (min, max))
    bare = [run.name for run in runs if not any(score.labelled for score in run.scores)]
    remark = f"{len(bare)} of {len(runs)} runs have no labels; the table of {bare[0]}, reported by itself, says why." if bare else ""
    legend = [*broken(_LEGEND, SWEEP_WIDTH), *broken(remark, SWEEP_WIDTH)]
    title = f"sweep {name}: {len(runs)} runs, {' to '.join(map(str, counts))} questions each"
    return "\n".join(line[:SWEEP_WIDTH].rstrip() for line in (title, "", *_blocks(rows), "", *_first_votes(rows), *legend)).rstrip()


def _scored(folder: Path) -> ScoredRun:
    """A run's report, of which only what rows are made of is kept."""
    found = report_run(folder).run
    ended = {line["attempt"] for line in read_lines(folder) if line["kind"] == "attempt"}
    return ScoredRun(
        name=folder.name,
        config=found.config,
        summary=found.summary,
        scores=score_questions(found.finished, found.grades),
        timed=sum(question.record.attempt in ended for question in found.finished),
    )


def _key(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """The values of settings in a form in which equal ones are equal, lists too."""
    return json.dumps([config.get(name) for name in names], sort_keys=True)


def _values(name: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The different values of a setting in the runs that it has an effect on."""
    return {_key(config, [name]): config.get(name) for config in configs if has_effect(name, config)}


def _row(runs: Sequence[ScoredRun], shown: Mapping[str, str]) -> SweepRow:
    settings = {name: runs[0].config.get(name) for name in shown}
    # Words stand for themselves (sttrl), anything else needs its setting (steps 2).
    worded = [cell if isinstance(settings[name], str) else f"{name} {cell}" for name, cell in shown.items() if cell != NOTHING]
    return SweepRow(
        settings=settings,
        cells=tuple(shown.values()),
        label=", ".join(worded) or "all runs",
        runs=tuple(runs),
        score=score_together(runs),
        by_seed=tuple(score_together([run]) for run in runs),
    )


def _column(name: str, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A setting's cells, short where that leaves values apart."""
    values = [config.get(name) if has_effect(name, config) else None for config in configs]
    whole = [_text(value) for value in values]
    short = [text.rstrip("/").split("/")[-1][:_LONGEST_CELL] for text in whole]
    return short if len(set(short)) == len(set(whole)) else whole


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return NOTHING if value is None else "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())


def _by_question(runs: Sequence[ScoredRun], row: RowName, metric: str, beside: RowName) -> dict[str, float]:
    """A metric of a row of the runs' tables, a question's mean over the seeds that have it and the row beside it."""
    found: dict[str, list[float]] = {}
    for score in (score for run in runs for score in run.scores):
        poll, other = score.row(row), score.row(beside)
        value = None if poll is None or other is None else poll.metrics[metric]
        if value is not None:
            found.setdefault(score.id, []).append(value)
    return {question: fmean(values) for question, values in found.items()}


def _blocks(rows: Sequence[SweepRow]) -> list[str]:
    """One table where it fits, else two; where labels leave no room for numbers, numbers stand for labels."""
    labels = [tuple(_HEADINGS.get(name, name) for name in rows[0].settings), *(row.cells for row in rows)]
    whole = [(*_ACCURACIES, *_COSTS), *map(_cells, rows)]
    halves = [[cells[part] for cells in whole] for part in (slice(len(_ACCURACIES)), slice(len(_ACCURACIES), None))]
    for lines in (_beside(labels, whole), [*_beside(labels, halves[0]), "", *_beside(labels, halves[1])]):
        if max(map(len, lines)) <= SWEEP_WIDTH:
            return lines
    key = [line for number, row in enumerate(rows, 1) for line in broken(f"{number}: {row.label}", SWEEP_WIDTH)]
    return [*key, "", *_beside([("",), *((str(number),) for number in range(1, len(rows) + 1))], whole)]


def _first_votes(rows: Sequence[SweepRow]) -> list[str]:
    """What adapting made of right and of wrong first votes, for the rows that hold votes and adapt; an empty line below."""
    voting = [row for row in rows if row.score.right_first + row.score.wrong_first]
    if not voting:
        return []
    cells = [_FIRST_VOTES, *map(_first_vote_cells, voting)]
    labels = [tuple(_HEADINGS.get(name, name) for name in rows[0].settings), *(row.cells for row in voting)]
    lines = _beside(labels, cells)
    if max(map(len, lines)) > SWEEP_WIDTH:
        lines = _beside([("",), *((str(number),) for number, row in enumerate(rows, 1) if row in voting)], cells)
    return [*lines, ""]


def _first_vote_cells(row: SweepRow) -> tuple[str, ...]:
    score = row.score
    right = (str(score.right_first), *map(share_or_nothing, (score.right_base, score.right_adapted)))
    return (*right, str(score.wrong_first), *map(share_or_nothing, (score.wrong_base, score.wrong_adapted)))


def _beside(labels: Sequence[tuple[str, ...]], cells: Sequence[tuple[str, ...]]) -> list[str]:
    return aligned([(*label, *own) for label, own in zip(labels, cells, strict=True)])


def _cells(row: SweepRow) -> tuple[str, ...]:
    """A row's numbers, as the headings have them."""
    score = row.score
    gain, low, high = score.gain_mean, score.gain_low, score.gain_high
    tokens, seconds = score.tokens_per_question, score.seconds_per_question
    return (
        *map(share_or_nothing, (score.base_mean, score.vote_majority, score.vote_confidence, score.adapted_mean)),
        NOTHING if gain is None or low is None or high is None else with_interval(gain, low, high, signed=True),
        p_value_or_nothing(score.p_value),
        share_or_nothing(score.adapted_majority),
        NOTHING if tokens is None else f"{tokens:,.0f}",
        NOTHING if seconds is None else f"{seconds:,.1f}",
        str(len(row.runs)),
        str(score.failed),
    )


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that are one thing and not the default wherever they have an effect, with those that every reader looks for."""
    dull = {**to_plain(RunConfig()), "dataset": None, "model": None, "val_samples": None}
    found = {name: list(_values(name, configs).values()) for name in configs[0] if name not in _PLACES}
    return {name: values[0] for name, values in found.items() if len(values) == 1 and values[0] != dull.get(name)}


def _environment(folder: Path) -> str:
    """Versions and cores of a run."""
    file = folder / ENVIRONMENT
    if not file.exists():
        return "not noted"
    found = json.loads(file.read_text(encoding="utf-8"))
    versions = {"python": found["python"], **found["packages"]}
    machine = f"{found['platform']}, {found['cores']} cores, {found['memory_mib']:,} MiB, {'CUDA' if found['cuda'] else 'no CUDA'}"
    machine += f", {found['dtype']}" if "dtype" in found else ""
    return f"{machine}; {', '.join(f'{name} {version}' for name, version in versions.items() if version is not None)}"


def _page(name: str, table: str, runs: int, common: dict[str, Any], environment: str, file: Path | None) -> str:
    settings = ", ".join(f"{setting} {_text(value)}" for setting, value in common.items())
    return f"""# Sweep {name}

```
{table}
```

![The gain of every row, with its interval](sweep.svg)

- From: {"" if file is None else f"`{file}`, "}{runs} runs in the folders beside this file, each with its own `report.html`
- Settings of all runs: {settings}; what neither this nor a row names has its default
- Machine of the first run: {environment}
- The same numbers: [sweep.json](sweep.json) by row and seed, [sweep.csv](sweep.csv) by run
"""


def _numbers(name: str, rows: Sequence[SweepRow], common: dict[str, Any]) -> dict[str, Any]:
    """sweep.json: every row, and each of its runs by itself."""
    content = []
    for row in rows:
        by_seed = [{"run": r.name, "seed": r.config.get("seed"), **asdict(score)} for r, score in zip(row.runs, row.by_seed, strict=True)]
        content.append({"label": row.label, "settings": row.settings, "seeds": len(row.runs), **asdict(row.score), "by_seed": by_seed})
    return {"schema": SWEEP_SCHEMA, "sweep": name, "settings": common, "rows": content}


def _lines(rows: Sequence[SweepRow]) -> str:
    """sweep.csv: a line a run; an empty cell is a number that the run has not."""
    text, names = io.StringIO(), [*rows[0].settings, "seed"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *names, *asdict(rows[0].score)])
    pairs = [pair for row in rows for pair in zip(row.runs, row.by_seed, strict=True)]
    writer.writerows([run.name, *map(run.config.get, names), *asdict(score).values()] for run, score in pairs)
    return text.getvalue()
