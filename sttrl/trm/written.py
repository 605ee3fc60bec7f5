"""What an evaluation leaves in the run folder: a line of the journal, the files of the vote, some puzzles to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sttrl.ledger.files import write_text
from sttrl.trm.augmentations import crop
from sttrl.trm.evaluate import PLAIN, Evaluated, Shown
from sttrl.trm.evaluation_files import ARC, write_evaluation
from sttrl.trm.run_files import RunFiles

PUZZLES = "puzzles.json"


def write_results(
    files: RunFiles,
    step: int,
    rows: Mapping[str, Evaluated],
    test_puzzles: Mapping[str, Any],
    identifiers: Sequence[str],
    *,
    seconds: float,
) -> list[str]:
    """Write everything about an evaluation after ``step`` steps. Returns the remarks about the plain row's vote."""
    remarks: list[str] = []
    for row, found in rows.items():
        scores = None
        if found.ballot is not None:
            name = ARC if row == PLAIN else f"{ARC}_{row.replace(' ', '_')}"
            written = write_evaluation(files.folder, name, step, found.ballot, test_puzzles)
            if written.score is not None:
                scores = {rule: [ratio.numerator, ratio.denominator] for rule, ratio in written.score.rules.items()}
            if row == PLAIN:
                remarks = written.remarks
        files.record(
            "evaluation",
            step=step,
            row=row,
            metrics={name: value if math.isfinite(value) else None for name, value in found.metrics.items()},
            right={name: list(counts) for name, counts in found.right.items()},
            shares={} if found.ballot is None else {name: list(values) for name, values in found.ballot.shares.items()},
            scores=scores,
            missing=None if found.ballot is None else found.ballot.missing,
            seconds=seconds,
        )
    shown = rows[PLAIN]
    puzzles = [as_grids(puzzle, identifiers, is_arc=shown.ballot is not None) for puzzle in shown.shown]
    write_text(files.folder / PUZZLES, json.dumps(puzzles) + "\n")
    return remarks


def as_grids(puzzle: Shown, identifiers: Sequence[str], *, is_arc: bool) -> dict[str, Any]:
    """A puzzle as grids: colours of an ARC task, or the tokens less one (the digits of a Sudoku, 0 for an empty cell)."""
    fields = asdict(puzzle)
    identity = fields.pop("identity")
    name = identifiers[identity] if is_arc else ""
    answer = [max(token, 0) for token in fields["answer"]]
    grids: dict[str, Any] = {"title": name, "digits": not is_arc}
    for side, tokens in (fields | {"answer": answer}).items():
        array = np.asarray(tokens)[None]
        width = math.isqrt(array.shape[1])
        width = width if width**2 == array.shape[1] else array.shape[1]
        grids[side] = crop(array)[0].tolist() if is_arc else np.maximum(array.reshape(-1, width) - 1, 0).tolist()
    return grids
