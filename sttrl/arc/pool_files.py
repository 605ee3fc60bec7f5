"""``python main.py pool``: reads runs and files of predictions, pools them, and writes the submission. Labels are not read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sttrl.arc.pool import Source, default_selection, pool_of
from sttrl.arc.pool_predictions import predictions_source
from sttrl.arc.pool_runs import Stage, read_arc_config, run_source
from sttrl.arc.sources import ArcData, ArcSpec, inspect_tasks, read_tasks
from sttrl.arc.submission import SUBMISSION, Filled, write_submission
from sttrl.arc.tasks import FINGERPRINT
from sttrl.errors import DataError, UsageError
from sttrl.ledger.journal import JOURNAL


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A pool whose submission was written. ``filled``: what is missing in it."""

    data: ArcData = field(repr=False)
    sources: tuple[Source, ...]
    pool: Source
    selection: str
    stage: Stage
    path: Path
    filled: Filled


def write_pool(
    paths: Sequence[Path], *, out: Path, selection: str | None, stage: Stage, dataset: str | None = None, data_dir: Path | None = None
) -> Pooled:
    """Pool run folders and files of predictions, and write ``out``/submission.json.

    ``dataset``: the data set of the predictions; of runs alone it is known. Raises `UsageError`, `JournalError` and `DataError`.
    """
    check_paths(paths, out)
    configs = {path: read_arc_config(path) for path in paths if not path.is_file()}
    check_same_tasks(configs)
    data = data_of(configs, dataset, data_dir)
    sources = tuple(
        run_source(path, configs[path], data.tasks, stage) if path in configs else predictions_source(path, data.tasks) for path in paths
    )
    pool = pool_of(sources, selection)
    filled = write_submission(out / SUBMISSION, data.tasks, pool.answers)
    return Pooled(
        data=data,
        sources=sources,
        pool=pool,
        selection=selection or default_selection(sources),
        stage=stage,
        path=out / SUBMISSION,
        filled=filled,
    )


def check_paths(paths: Sequence[Path], out: Path) -> None:
    """Raises UsageError for a source that is given twice, and for an output folder that is a run's."""
    seen = [path.resolve() for path in paths]
    if twice := next((path for path, real in zip(paths, seen, strict=True) if seen.count(real) > 1), None):
        raise UsageError(f"{twice} is given twice, and would count twice.", "Give each run once.")
    if (out / JOURNAL).exists():
        raise UsageError(f"--out {out} is a run folder, and has a submission of its own.", "Give another folder.")


def check_same_tasks(configs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raises UsageError for runs of different data sets."""
    runs = list(configs.items())
    for path, config in runs[1:]:
        if config.get(FINGERPRINT) != runs[0][1].get(FINGERPRINT):
            first = f"{runs[0][0]} ({runs[0][1]['dataset']})"
            raise UsageError(f"{first} and {path} ({config['dataset']}) are runs of different tasks.", "Pool runs of one data set.")


def data_of(configs: Mapping[Path, Mapping[str, Any]], dataset: str | None, data_dir: Path | None) -> ArcData:
    """The named data set, or that of the runs. Raises `UsageError` if there is neither, and `DataError` if it has other tasks."""
    path, config = next(iter(configs.items()), (None, {}))
    named = dataset or config.get("dataset")
    if named is None:
        raise UsageError("Predictions do not say which tasks they are about.", "Give --dataset.")
    own = config.get("data_dir") if dataset is None else None
    spec = ArcSpec(dataset=named, data_dir=data_dir or (Path(own) if own else None))
    skips = any(each.get("on_bad_row") == "skip" for each in configs.values())
    data = inspect_tasks(spec) if skips else read_tasks(spec)
    if path is not None and data.fingerprint != config.get(FINGERPRINT):
        raise DataError(f"{data.path} does not have the tasks of {path} any more.", "Give the data set of the run: --dataset, --data_dir.")
    return data
