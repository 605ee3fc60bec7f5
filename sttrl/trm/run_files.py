"""The folder of a training: settings, journal, metrics, checkpoints, and what evaluations wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import torch

from sttrl.engine.environment import describe_environment
from sttrl.errors import JournalError, UsageError
from sttrl.ledger.files import json_line, whole_lines, write_bytes, write_json, write_text
from sttrl.ledger.folder import CONFIG, ENVIRONMENT, KIND
from sttrl.ledger.journal import Journal
from sttrl.track import Tracker
from sttrl.trm.config import as_mapping, as_yaml, flat
from sttrl.trm.data.format import IDENTIFIERS_FILE
from sttrl.trm.run_names import FREE, named, project_name
from sttrl.trm.train_config import ALL_CONFIG, METRICS, TrainConfig
from sttrl.trm.weights import write_tensors, write_weights

TRM: Final = "trm"
"""The kind of such a run, in its config.json."""


class RunFiles:
    """Writes the run folder. Only the first of several processes writes; the others do nothing."""

    def __init__(self, folder: Path, config: TrainConfig, *, writes: bool) -> None:
        self.folder, self.config, self.writes = folder, config, writes
        self.journal: Journal | None = None
        self.tracker: Tracker | None = None
        self.metrics: IO[bytes] | None = None
        self.lines = 0

    def __enter__(self) -> RunFiles:
        settings = as_mapping(self.config)
        if (self.folder / CONFIG).is_file():
            check_same(self.folder, settings)
        if self.writes:
            self.journal = Journal(self.folder)
            try:
                if self.config.entity is not None:
                    os.environ.setdefault("WANDB_ENTITY", self.config.entity)
                self.tracker = Tracker(self.config.track, self.folder, settings, project_name(self.config))
                self.metrics = (self.folder / METRICS).open("ab")
            except BaseException:
                self.journal.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.ExitStack() as stack:
            for thing in (self.journal, self.tracker, self.metrics):
                if thing is not None:
                    stack.callback(thing.close)

    def claim(self) -> None:
        """Write the settings, unless they are there: from now on the folder belongs to this run.

        It is called when data and checkpoint have been read, so that a command with a fault in it can be corrected.
        """
        if not self.writes or (self.folder / CONFIG).is_file():
            return
        write_json(self.folder / ENVIRONMENT, describe_environment())
        write_text(self.folder / ALL_CONFIG, as_yaml(named(self.config)))
        write_json(self.folder / CONFIG, {**as_mapping(self.config), KIND: TRM})

    def cut(self, lines: int) -> None:
        """Forget the metrics after so many lines: those of steps and evaluations that are done again."""
        if self.metrics is not None:
            self.metrics.close()
            path = self.folder / METRICS
            kept = whole_lines(path.read_bytes())[:lines]
            write_bytes(path, b"".join(line + b"\n" for line in kept))
            self.metrics, self.lines = path.open("ab"), len(kept)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a step."""
        if self.metrics is not None and self.tracker is not None:
            self.metrics.write(json_line({"step": step, **metrics}).encode())
            self.lines += 1
            self.tracker.log(metrics, step)

    def settle(self) -> int:
        """Write the metrics that are still in a buffer to metrics.jsonl. Returns how many lines the file has then."""
        if self.metrics is not None:
            self.metrics.flush()
        return self.lines

    def record(self, kind: str, **record: Any) -> None:
        """A line of the journal."""
        if self.journal is not None:
            self.journal.append(kind, **record)

    def checkpoint(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Write a checkpoint under the original's name, ``step_N``."""
        if self.writes:
            write_weights(self.folder / f"step_{step}", state)

    def adapter(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Write what was trained beside a base that stays as it is: the LoRA, the embeddings of tokens, the puzzle table."""
        if self.writes:
            write_tensors(self.folder / f"step_{step}_lora.safetensors", state)

    def names(self, identifiers: list[str]) -> None:
        """Keep the names of the rows of the puzzle table."""
        if self.writes:
            write_text(self.folder / IDENTIFIERS_FILE, json.dumps(identifiers))


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises `UsageError` if the folder belongs to a run with other settings, `JournalError` if it cannot be read."""
    try:
        begun = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise JournalError(f"{folder / CONFIG} is damaged.", "Restore it, or use another run_name.") from error
    if begun.pop(KIND, None) != TRM:
        raise UsageError(f"{folder} is the folder of another kind of run.", "Use another run_name.")
    before, now = flat(begun), flat(json.loads(json.dumps(settings)))
    differing = sorted(name for name in {*before, *now} if name not in FREE and before.get(name) != now.get(name))
    if differing:
        shown = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in differing[:3])
        raise UsageError(f"{folder} was begun with other settings: {shown}.", "Use the same, or another run_name.")
