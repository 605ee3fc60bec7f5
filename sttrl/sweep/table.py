"""The report of a sweep, made from its run folders: a table as text, sweep.md, sweep.json, sweep.csv and the pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sttrl.ledger.files import write_json, write_text
from sttrl.ledger.folder import ENVIRONMENT
from sttrl.report.layout import NOTHING, aligned, broken, number_or_nothing, p_value_or_nothing, with_interval
from sttrl.report.view.details import FindPieces, no_pieces
from sttrl.sweep.pictures import write_pictures
from sttrl.sweep.rows import SweepRow, common_settings, difference, differing_settings, score_run, setting_text, sweep_rows

SWEEP_SCHEMA: Final = 1
SWEEP_WIDTH: Final = 120
"""Most characters in a line of the table."""
_HEADINGS: Final = {"adaptation_method": "method", "voting_function": "voting"}
_ACCURACIES: Final = ("base", "vote", "conf.", "adapted", "gain", "p", "maj@k")
_COSTS: Final = ("tokens", "seconds", "seeds", "failed")
_SAME_TOKENS: Final = ("maj@k", "vote", "above vote", "p", "conf.", "above conf.", "p")
_FIRST_VOTES: Final = ("right", "base", "adapted", "wrong", "base", "adapted")
_LEGEND: Final = (
    "base, adapted, gain: {metric}, a question's over its seeds, then over the questions; with a 95 % interval by question. "
    "p: permutation test of the gain. vote, conf.: maj@k of the base with the tokens that adapting took, by majority and by confidence. "
    "maj@k: adapted; above vote, above conf.: how far it is above these, paired by question, and p of that. "
    "tokens (sampled and trained on), seconds (wall, without start-up): a question. failed: questions of all seeds. "
    "right, wrong: questions of all seeds whose first vote elected the right answer, or another or none, and their {metric}. "
    f"{NOTHING}: there is no such number; a setting that is left to the method, or has no effect on it."
)


@dataclass(frozen=True)
class SweepReport:
    """The table of a sweep and the folder of its files. ``bad`` of ``total`` questions did not end with status "done".

    ``pictures``: for a terminal, of the last run.
    """

    table: str
    folder: Path
    bad: int
    total: int
    pictures: str = ""


def report_sweep(
    name: str,
    folders: Sequence[Path],
    file: Path | None = None,
    data: Mapping[Path, Any] | None = None,
    baseline: str | None = None,
    find_pieces: FindPieces = no_pieces,
) -> SweepReport:
    """Write the report of every run, and in the folder above them sweep.md, .json, .csv, .png and .svg.

    ``file``: the file that describes the sweep; ``data``: the data sets that were read already, by run folder. ``baseline``: the
    name of the run that the others are compared to. ``find_pieces``: finds the texts of a model's tokens, for the pages of the runs.
    Raises `JournalError` for a folder that holds no run, and where a file cannot be written.
    """
    folder, runs = folders[0].parent, [score_run(each, (data or {}).get(each), find_pieces) for each in folders]
    configs = [run.config for run in runs]
    rows = sweep_rows(runs, tuple(setting for setting in differing_settings(configs) if setting != "seed"))
    table, common = sweep_table(name, rows, baseline), common_settings(configs)
    write_text(folder / "sweep.md", _page(name, table, len(runs), common, _environment(folders[0]), file))
    write_json(folder / "sweep.json", _numbers(name, rows, common))
    write_text(folder / "sweep.csv", _lines(rows))
    write_pictures(folder, name, rows)
    return SweepReport(table, folder, sum(row.score.failed for row in rows), sum(row.score.finished for row in rows), runs[-1].pictures)


def sweep_table(name: str, rows: Sequence[SweepRow], baseline: str | None = None) -> str:
    """The table, the differences to the baseline's row, and the legend, at most `SWEEP_WIDTH` wide. If a line is too long, the costs become
    a table of their own below."""
    runs = [run for row in rows for run in row.runs]
    counts = dict.fromkeys(end(row.score.questions for row in rows) for end in (min, max))
    bare = [run.name for run in runs if not any(score.labelled for score in run.scores)]
    remark = f"{len(bare)} of {len(runs)} runs have no labels; the table of {bare[0]}, reported by itself, says why." if bare else ""
    legend = [*broken(_LEGEND.format(metric=rows[0].score.metric if rows else NOTHING), SWEEP_WIDTH), *broken(remark, SWEEP_WIDTH)]
    title = f"sweep {name}: {len(runs)} runs, {' to '.join(map(str, counts))} questions each"
    lines = (title, "", *_blocks(rows), "", *_first_votes(rows), *_differences(rows, baseline), *_same_tokens(rows), *legend)
    return "\n".join(line[:SWEEP_WIDTH].rstrip() for line in lines).rstrip()


def _blocks(rows: Sequence[SweepRow]) -> list[str]:
    """One table if it fits, else two; if labels leave no room even then, rows are numbered and a list above explains the numbers."""
    labels = [tuple(_HEADINGS.get(name, name) for name in rows[0].settings), *(row.cells for row in rows)]
    whole = [(*_ACCURACIES, *_COSTS), *map(_cells, rows)]
    halves = [[cells[part] for cells in whole] for part in (slice(len(_ACCURACIES)), slice(len(_ACCURACIES), None))]
    for lines in (_beside(labels, whole), [*_beside(labels, halves[0]), "", *_beside(labels, halves[1])]):
        if max(map(len, lines)) <= SWEEP_WIDTH:
            return lines
    key = [line for number, row in enumerate(rows, 1) for line in broken(f"{number}: {row.label}", SWEEP_WIDTH)]
    return [*key, "", *_beside([("",), *((str(number),) for number in range(1, len(rows) + 1))], whole)]


def _same_tokens(rows: Sequence[SweepRow]) -> list[str]:
    """The adapted policy's maj@k against the base's votes with the same tokens, for rows that have both; then an empty line."""
    chosen = [row for row in rows if row.score.above_vote_mean is not None]
    return _labelled(rows, chosen, [_SAME_TOKENS, *map(_same_tokens_cells, chosen)])


def _first_votes(rows: Sequence[SweepRow]) -> list[str]:
    """The main metric before and after adapting, by whether the first vote was right, for rows with votes; then an empty line."""
    voting = [row for row in rows if row.score.right_first + row.score.wrong_first]
    return _labelled(rows, voting, [_FIRST_VOTES, *map(_first_vote_cells, voting)])


def _labelled(rows: Sequence[SweepRow], chosen: Sequence[SweepRow], cells: Sequence[tuple[str, ...]]) -> list[str]:
    """A table of some of the rows, with their settings, or with their numbers where these leave no room; then an empty line."""
    if not chosen:
        return []
    lines = _beside([tuple(_HEADINGS.get(name, name) for name in rows[0].settings), *(row.cells for row in chosen)], cells)
    if max(map(len, lines)) > SWEEP_WIDTH:
        lines = _beside([("",), *((str(number),) for number, row in enumerate(rows, 1) if row in chosen)], cells)
    return [*lines, ""]


def _differences(rows: Sequence[SweepRow], baseline: str | None) -> list[str]:
    """Each row beside the baseline's, then an empty line; nothing without a baseline."""
    place = next((number for number, row in enumerate(rows, 1) if any(run.name == baseline for run in row.runs)), None)
    if place is None:
        return []
    cells = [("", f"adapted, above {place}", "p")]
    for number, row in enumerate(rows, 1):
        found = None if number == place else difference(row, rows[place - 1])
        interval = NOTHING if found is None else with_interval(found.mean, found.low, found.high, signed=True)
        numbers = (interval, p_value_or_nothing(None if found is None else found.p_value))
        cells.append((str(number), *numbers))
    note = f"Row {place} is the baseline ({rows[place - 1].label}). A row that adapts nothing is compared by its base. Paired by question."
    return [*aligned(cells), *broken(note, SWEEP_WIDTH), ""]


def _same_tokens_cells(row: SweepRow) -> tuple[str, ...]:
    score = row.score
    parts = (
        (score.vote_majority, score.above_vote_mean, score.above_vote_low, score.above_vote_high, score.above_vote_p),
        (
            score.vote_confidence, score.above_confidence_mean, score.above_confidence_low, score.above_confidence_high,
            score.above_confidence_p,
        ),
    )  # fmt: skip
    return (number_or_nothing(score.adapted_majority), *(cell for part in parts for cell in _above_cells(*part)))


def _above_cells(vote: float | None, mean: float | None, low: float | None, high: float | None, p: float | None) -> tuple[str, ...]:
    above = NOTHING if mean is None or low is None or high is None else with_interval(mean, low, high, signed=True)
    return number_or_nothing(vote), above, p_value_or_nothing(p)


def _first_vote_cells(row: SweepRow) -> tuple[str, ...]:
    score = row.score
    right = (str(score.right_first), *map(number_or_nothing, (score.right_base, score.right_adapted)))
    return (*right, str(score.wrong_first), *map(number_or_nothing, (score.wrong_base, score.wrong_adapted)))


def _beside(labels: Sequence[tuple[str, ...]], cells: Sequence[tuple[str, ...]]) -> list[str]:
    return aligned([(*label, *own) for label, own in zip(labels, cells, strict=True)])


def _cells(row: SweepRow) -> tuple[str, ...]:
    """A row's numbers, in the order of the headings."""
    score = row.score
    gain, low, high = score.gain_mean, score.gain_low, score.gain_high
    tokens, seconds = score.tokens_per_question, score.seconds_per_question
    return (
        *map(number_or_nothing, (score.base_mean, score.vote_majority, score.vote_confidence, score.adapted_mean)),
        NOTHING if gain is None or low is None or high is None else with_interval(gain, low, high, signed=True),
        p_value_or_nothing(score.p_value),
        number_or_nothing(score.adapted_majority),
        NOTHING if tokens is None else f"{tokens:,.0f}",
        NOTHING if seconds is None else f"{seconds:,.1f}",
        str(len(row.runs)),
        str(score.failed),
    )


def _environment(folder: Path) -> str:
    """The machine and the package versions of a run, as one line."""
    file = folder / ENVIRONMENT
    if not file.exists():
        return "not noted"
    found = json.loads(file.read_text(encoding="utf-8"))
    versions = {"python": found["python"], **found["packages"]}
    machine = f"{found['platform']}, {found['cores']} cores, {found['memory_mib']:,} MiB, {'CUDA' if found['cuda'] else 'no CUDA'}"
    machine += f", {found['dtype']}" if "dtype" in found else ""
    return f"{machine}; {', '.join(f'{name} {version}' for name, version in versions.items() if version is not None)}"


def _page(name: str, table: str, runs: int, common: dict[str, Any], environment: str, file: Path | None) -> str:
    settings = ", ".join(f"{setting} {setting_text(value)}" for setting, value in common.items())
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
    """The content of sweep.json: every row, and in it each of its runs."""
    content = []
    for row in rows:
        by_seed = [{"run": r.name, "seed": r.config.get("seed"), **asdict(score)} for r, score in zip(row.runs, row.by_seed, strict=True)]
        content.append({"label": row.label, "settings": row.settings, "seeds": len(row.runs), **asdict(row.score), "by_seed": by_seed})
    return {"schema": SWEEP_SCHEMA, "sweep": name, "settings": common, "rows": content}


def _lines(rows: Sequence[SweepRow]) -> str:
    """The text of sweep.csv: one line per run; a cell is empty if the run does not have the number."""
    text, names = io.StringIO(), [*rows[0].settings, "seed"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *names, *asdict(rows[0].score)])
    pairs = [pair for row in rows for pair in zip(row.runs, row.by_seed, strict=True)]
    writer.writerows([run.name, *map(run.config.get, names), *asdict(score).values()] for run, score in pairs)
    return text.getvalue()
