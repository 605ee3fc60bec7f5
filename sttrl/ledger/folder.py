"""The run folder: which run it belongs to, and which attempt this is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.config import RunConfig, codes, to_plain
from sttrl.data import SourceSpec
from sttrl.errors import JournalError
from sttrl.ledger.files import write_json
from sttrl.ledger.journal import JOURNAL, read_lines

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
REVISIONS = ("model_revision", "dataset_revision")
"""Fields of config.json that are no settings: the commits of model and data set on the hub; null if they are not from the hub."""
TRAINED_ON = "training_revision"
"""The field of config.json with the fingerprint of the data sets of ``--train_dataset``; it is no setting."""
CODE = "code_of_"
"""What begins a field of config.json with the code of others that a setting names, and its hash; such a field is no setting."""
KIND = "kind"
"""The field of config.json that names the kind of problem; it is no setting."""
FREE = frozenset({
    "config", "preset", "output_dir", "run_name", "data_dir", "parallel_problems", "lanes", "gpus_per_lane", "track",
    "gpu_memory_utilization", "kv_cache_mib", "checkpoint_every", "time_limit", "task_time_limit", "search_time_limit", "retry_unsure",
})  # fmt: skip
"""Settings that may be changed when a run is resumed: they say where and how fast it runs, not what it computes.
A preset is only the name of settings, and these are compared."""


def run_folder(config: RunConfig) -> Path:
    """The folder of this run: `run_name`, or a name made from the settings, so that the same command finds the same folder."""
    return config.run.output_dir / (config.run.run_name or default_name(config))


def default_name(config: RunConfig) -> str:
    """Data set, model and method, and a hash of every setting that matters."""
    words = (Path(config.data.dataset).stem, config.engine.model.rstrip("/").split("/")[-1], config.method.adaptation_method)
    return folder_name(words, identity(plain_with_code(config)))


def plain_with_code(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON values, and the code of others that they name."""
    return {**to_plain(config), **{f"{CODE}{name}": code for name, code in codes(config).items()}}


def folder_name(words: Sequence[str], chosen: Any) -> str:
    """A name for a folder: some words, and a hash of everything that was chosen (JSON values), so that the same command finds it again."""
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join((*(re.sub(r"[^A-Za-z0-9_.]+", "_", word) for word in words), digest))


def identity(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings that must be the same when a run is resumed."""
    return {name: value for name, value in plain.items() if name not in FREE and name != KIND}


def claim(folder: Path, config: RunConfig, facts: Mapping[str, str | None] | None = None) -> None:
    """Write config.json, or check that the folder belongs to this run. Raises `JournalError`, which names the settings that differ.

    A folder is free if no question was begun in it (because the model was wrong, say). The caller has the journal open. ``facts``:
    what config.json holds besides the settings, by name: the commits (`REVISIONS`) and the kind of problem.
    """
    check_owner(folder, config, facts)
    if not has_begun(folder):
        write_json(folder / CONFIG, {**plain_with_code(config), **dict.fromkeys(REVISIONS), **(facts or {})})


def check_owner(folder: Path, config: RunConfig, facts: Mapping[str, str | None] | None = None) -> None:
    """Check that a folder is free or belongs to this run. Commits and the fingerprint of the training set are compared only if both
    sides know them."""
    if not has_begun(folder):
        return
    if not (folder / CONFIG).exists():
        raise JournalError(f"{folder} has a journal and no {CONFIG}.", "Use another --run_name.")
    # A setting that an older sttrl did not have was at its default.
    before, now = identity({**to_plain(RunConfig()), **read_config(folder)}), identity({**plain_with_code(config), **(facts or {})})
    names = (before.keys() | now.keys()) - {name for name in (*REVISIONS, TRAINED_ON) if name not in before or name not in now}
    differing = sorted(name for name in names if before.get(name) != now.get(name))
    if differing:
        changes = ", ".join(f"{setting_name(name)} {before.get(name)!r} then, {now.get(name)!r} now" for name in differing[:4])
        raise JournalError(f"{folder} holds another run: {changes}.", "Use another --run_name, or repeat the same command to resume.")


def begun_revisions(folder: Path) -> dict[str, str | None]:
    """The commits that a run began with; a resumed run uses the same ones. All None if no question was begun."""
    plain = read_config(folder) if has_begun(folder) and (folder / CONFIG).exists() else {}
    return {name: plain.get(name) for name in REVISIONS}


def withdraw(folder: Path) -> None:
    """Remove the files of a run that began no question. If the engine left logs, keep everything: they say why."""
    if has_begun(folder) or (folder / "logs").exists():
        return
    for name in (CONFIG, ENVIRONMENT, JOURNAL):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the folder holds other files
        folder.rmdir()


def has_begun(folder: Path) -> bool:
    """Whether the run has begun a question."""
    return (folder / JOURNAL).exists() and (folder / JOURNAL).stat().st_size > 0


def begun_dtype(folder: Path) -> str | None:
    """The dtype that a run began with; a resumed run uses the same one, on whatever machine."""
    file = folder / ENVIRONMENT
    if not has_begun(folder) or not file.exists():
        return None
    dtype: str | None = json.loads(file.read_text(encoding="utf-8")).get("dtype")
    return dtype


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run, as plain values."""
    try:
        value = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(value, dict) or "dataset" not in value:
            raise ValueError("no settings of a run")
    except (OSError, ValueError) as error:
        raise JournalError(f"{folder} is not a run folder: it has no readable {CONFIG}.", "Give a folder under outputs/.") from error
    named = value.get("question_column")
    # An older sttrl wrote one name or null here; now it is a list.
    return {**value, "question_column": [named] if isinstance(named, str) else named or []}


def attempts(folder: Path) -> tuple[int, dict[str, float]]:
    """The number of attempts in the journal, and the summed wall seconds of those that ended, by name."""
    number, seconds = 0, {"total": 0.0, "start_up": 0.0}
    for record in read_lines(folder):
        number = max(number, int(record.get("attempt", 0)))
        if record["kind"] == "attempt":
            for name, value in record["seconds"].items():
                seconds[name] = seconds.get(name, 0.0) + value
    return number, seconds


def source_of(plain: dict[str, Any], data_dir: Path | None = None) -> SourceSpec:
    """Where a run's questions and labels come from, given its settings; ``data_dir`` replaces the folder that the settings name."""
    own = plain["data_dir"]
    return SourceSpec(
        dataset=plain["dataset"],
        data_dir=data_dir or (Path(own) if own else None),
        question_column=tuple(plain["question_column"]),
        answer_column=plain["answer_column"],
        id_column=plain["id_column"],
        answer_kind=plain["answer_kind"],
        on_bad_row=plain["on_bad_row"],
        revision=plain.get("dataset_revision"),
    )


def setting_name(setting: str) -> str:
    """The name of a setting in a message: its flag."""
    if setting.startswith(CODE):
        return f"the code of --{setting.removeprefix(CODE)}"
    return setting.replace("_", " ") if setting in (*REVISIONS, TRAINED_ON) else f"--{setting}"
