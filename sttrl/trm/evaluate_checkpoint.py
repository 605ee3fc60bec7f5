"""Evaluates a checkpoint on a data set, in a run folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sttrl.engine.environment import choose_device
from sttrl.errors import DataError
from sttrl.ledger.folder import folder_name
from sttrl.trm.checkpoints import find_checkpoint
from sttrl.trm.config import as_mapping, config_of
from sttrl.trm.evaluate import Evaluator
from sttrl.trm.opened import Say, open_data, unheard
from sttrl.trm.ranks import Ranks
from sttrl.trm.run_files import RunFiles
from sttrl.trm.run_names import identity
from sttrl.trm.train import evaluate, make_learner


def evaluate_checkpoint(
    checkpoint: Path, data: Path, settings: Sequence[str], say: Say, *, config: Path | None = None, out: Path | None = None
) -> Path:
    """Evaluate, and return the run folder. ``settings``: KEY=VALUE, such as ``rollouts=8``.

    Raises DataError for a checkpoint or data that cannot be used, UsageError for settings.
    """
    found = find_checkpoint(checkpoint, config)
    base = replace(
        found.known_config,
        data_paths=(str(data),),
        data_paths_test=(),
        load_checkpoint=str(found.file),
        checkpoint_path=None,
        run_name=None,
        project_name=None,
        ema=False,
        tasks=(),
        leave_out_test_demos=False,
    )
    chosen = config_of(as_mapping(base), settings) if settings else base
    folder = out or chosen.output_dir / folder_name(("trm", "evaluate", data.resolve().name), identity(chosen))
    ranks = Ranks.begin(choose_device(chosen.device))
    try:
        with RunFiles(folder, replace(chosen, checkpoint_path=str(folder)), writes=ranks.is_first) as files:
            heard = say if ranks.is_first else unheard
            opened = open_data(chosen, ranks, heard)
            if opened.test is None:
                raise DataError(f"{data} has no test split.", "Build it with a test set.")
            learner = make_learner(chosen, opened, found, ranks, heard)
            files.claim()
            files.cut(0)
            evaluate(learner, opened, Evaluator(chosen, opened.test, opened.votes, ranks), files, heard)
    finally:
        ranks.end()
    return folder
