"""The table of ``python main.py pool``: what each run, the pool, and each selection of the pool score. Solutions are read here alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sttrl.arc.labels import read_labels
from sttrl.arc.pool import UNEQUAL, Source, possible_selections, unequally_scored
from sttrl.arc.pool_files import Pooled, write_pool
from sttrl.arc.scores import Ratio, Solutions, first_attempts, kaggle, score, score_candidates
from sttrl.arc.sources import ArcData, ArcSpec
from sttrl.arc.submission import build_submission
from sttrl.arc.unsure import selection_of_both
from sttrl.config import RunConfig
from sttrl.errors import DataError
from sttrl.report.layout import aligned, broken, decimal, page

ORACLE: Final = "oracle: the right grid is among the candidates."
SELECTIONS_REMARK: Final = (
    "What each selection scores on the pool; a task counts 1, each of its outputs an equal part. "
    "The best of these was not known before the solutions were."
)


def pool_both(runs: Sequence[Path], out: Path, config: RunConfig) -> str:
    """Select from the candidates of a run and of its retry, write the submission, and return the table."""
    return pool_text(write_pool(runs, out=out, selection=selection_of_both(config), stage="adapted"))


def pool_text(pooled: Pooled) -> str:
    """The table of a pool, and what is missing in its submission."""
    try:
        solutions, remark = solutions_of(pooled.data), None
    except DataError as error:
        solutions, remark = {}, f"no labels: {error}"
    rows = [*((str(number), source) for number, source in enumerate(pooled.sources, start=1)), ("pool", pooled.pool)]
    lines = [f"{number}  {source.name}" for number, source in rows[:-1]]
    policies = f", {pooled.stage} policies" if any(source.has_nlls for source in pooled.sources) else ""
    lines += [f"pool: {pooled.selection}{policies}", *_notes(pooled), "", *_table(rows, pooled, solutions)]
    if solutions:
        lines += [ORACLE, "", *broken(SELECTIONS_REMARK), *_selections(pooled, solutions)]
    filled = pooled.filled
    missing = f", {filled.unanswered} without an answer; {filled.attempts} attempts are [[0]]" if filled.attempts else ""
    written = f"{pooled.path}: {filled.outputs} test inputs of {len(pooled.data.tasks)} tasks{missing}"
    return "\n".join([page(lines), "", *filter(None, [remark]), written])


def solutions_of(data: ArcData) -> Solutions:
    """The solutions of a data set, of the tasks that have one. Raises `DataError` if there are none, or if they have faults."""
    found = read_labels(ArcSpec(dataset=str(data.path)))
    if found.source is None:
        raise DataError(f"{found.missing}.", "The submission does not need them; it cannot be scored.")
    return {name: grids for name, grids in found.solutions.items() if grids is not None}


def _notes(pooled: Pooled) -> list[str]:
    """Remarks on the predictions and on the selection."""
    counts = {number: source.unreadable for number, source in enumerate(pooled.sources, start=1)}
    notes = [f"{number}: {count} predictions are no grids and do not vote." for number, count in counts.items() if count]
    if pooled.selection == UNEQUAL and (count := unequally_scored(pooled.pool)):
        notes.append(
            f"Note: {UNEQUAL} adds up NLLs, so a grid that every run has scored is behind one that few have scored. "
            f"{count} test inputs have such candidates; mul_aug_prob_3, mul_all_prob and kgmon do not have this fault."
        )
    return [line for note in notes for line in broken(note)]


def _table(rows: Sequence[tuple[str, Source]], pooled: Pooled, solutions: Solutions) -> list[str]:
    scored = [(name, source, _scores(source, pooled.data, solutions) if solutions else {}) for name, source in rows]
    header = ("", "tasks", "candidates", *scored[-1][2])
    cells = [
        (name, str(source.tasks), str(sum(len(f.candidates) for f in source.found.values())), *map(ratio_cell, scores.values()))
        for name, source, scores in scored
    ]
    return aligned([header, *cells])


def _scores(source: Source, data: ArcData, solutions: Solutions) -> dict[str, Ratio]:
    """The score of a source's own attempts by each rule; what it has not answered is no hit."""
    submission, _ = build_submission(data.tasks, source.answers)
    asked = [(task.id, [source.found.get((task.id, k)) for k in range(len(task.tests))]) for task in data.tasks]
    grids = {id: tuple(tuple(c.grid for c in found.candidates) if found else () for found in found_K) for id, found_K in asked}
    return {
        **score(submission, solutions).rules,
        "attempt_1": kaggle(first_attempts(submission), solutions),
        "oracle": kaggle(grids, solutions),
    }


def _selections(pooled: Pooled, solutions: Solutions) -> list[str]:
    """What each selection would score, as ARChitects' EvalTool weighs it."""
    places = [(task.id, k) for task in pooled.data.tasks if task.id in solutions for k in range(len(task.tests))]
    found = {place: pooled.pool.found[place].choice if place in pooled.pool.found else () for place in places}
    names = tuple(dict.fromkeys((*possible_selections(pooled.sources), pooled.selection)))
    two, one = (score_candidates(found, solutions, names, guesses=guesses).per_algorithm for guesses in (2, 1))
    rows = [(name, ratio_cell(two[name]), ratio_cell(one[name])) for name in names]
    return aligned([("", "two attempts", "first attempt"), *rows])


def ratio_cell(ratio: Ratio) -> str:
    """A score with its fraction: ``.571 4/7``."""
    return f"{decimal(ratio.value, 3)} {ratio.numerator:.4g}/{ratio.denominator:g}"
