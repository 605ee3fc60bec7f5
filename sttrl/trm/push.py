"""Pushes a run's checkpoint to the hub: weights, all_config.yaml, names of the puzzles, submission and a model card, in one commit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sttrl.arc.submission import SUBMISSION
from sttrl.data.hub import REPO
from sttrl.errors import DataError, SttrlError, UsageError, error_text
from sttrl.trm.config import read_config
from sttrl.trm.data.format import IDENTIFIERS_FILE
from sttrl.trm.evaluation_files import SCORES
from sttrl.trm.model_card import model_card, weights_of
from sttrl.trm.train_config import ALL_CONFIG

CARD: Final = "README.md"
BESIDE: Final = (ALL_CONFIG, IDENTIFIERS_FILE)
"""Files beside the weights that belong to them: the settings, and whose row of the puzzle table is whose."""
VOTE_FILES: Final = (SUBMISSION, SCORES)
"""Files of an evaluation of this step."""
CHECKPOINT: Final = re.compile(r"step_(\d+)(?!\d)(?!.*_all_preds)")
"""The files of a checkpoint; saved arrays of evaluations are none."""
LOG_IN: Final = "Log in with `hf auth login`, set HF_TOKEN, or give --token."


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """What is pushed: the run's folder, the step if the files name one, and the files by their names there."""

    folder: Path
    step: int | None
    files: dict[str, Path]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where a checkpoint is now. ``files`` are paths in the repository."""

    url: str
    files: tuple[str, ...]


def push(
    source: Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str | None = None,
    path_in_repo: str = "",
    branch: str | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Push a run's newest checkpoint, or a given one, to a model repository, which is made if need be.

    ``private`` concerns a new repository; one that exists keeps what it is. ``endpoint``: HF_ENDPOINT, or the hub. Raises UsageError
    without a token or for a wrong name, DataError where there is no checkpoint and where the hub refuses.
    """
    if not REPO.fullmatch(repo_id):
        raise UsageError(f"{repo_id!r} is no repository of the hub.", "Give ORGANISATION/NAME.")
    found = find_checkpoint(source)
    hub = import_module("huggingface_hub")
    known = token or hub.get_token()
    if known is None:
        raise UsageError("There is no token for the hub.", LOG_IN)
    api = hub.HfApi(endpoint=endpoint or os.environ.get("HF_ENDPOINT") or None, token=known)
    prefix = f"{path_in_repo.strip('/')}/" if path_in_repo.strip("/") else ""
    contents: dict[str, str | bytes] = {f"{prefix}{name}": str(path) for name, path in found.files.items()}
    contents[f"{prefix}{CARD}"] = card_of(found, repo_id.split("/")[1]).encode()
    message = commit_message or f"Upload {'a checkpoint' if found.step is None else f'step {found.step}'}"
    url = _sent(hub, api, repo_id, contents, private=private, branch=branch, message=message)
    return Pushed(url=url, files=tuple(sorted(contents)))


def find_checkpoint(source: Path) -> CheckpointFiles:
    """The files of a run's newest checkpoint, or of the checkpoint to which a file belongs. Raises DataError where there is none."""
    if not source.exists():
        raise DataError(f"There is no {source}.", "Give a run folder, or a checkpoint such as RUN/step_1000.")
    folder = source if source.is_dir() else source.parent
    steps = {path: int(match[1]) for path in sorted(folder.iterdir()) if path.is_file() and (match := CHECKPOINT.match(path.name))}
    if source.is_dir() and not steps:
        raise DataError(f"{source} holds no checkpoint.", "Give a run folder with step_N files, or the file itself.")
    step = max(steps.values()) if source.is_dir() else steps.get(source)
    weights = [source] if step is None else [path for path, number in steps.items() if number == step]
    beside = [folder / name for name in BESIDE]
    votes = [] if step is None else [path for name in VOTE_FILES for path in folder.glob(f"evaluator_*_step_{step}/{name}")]
    files = {path.relative_to(folder).as_posix(): path for path in (*weights, *beside, *votes) if path.is_file()}
    return CheckpointFiles(folder=folder, step=step, files=files)


def card_of(checkpoint: CheckpointFiles, name: str) -> str:
    """The model card of a checkpoint. Raises UsageError for an all_config.yaml that cannot be read."""
    file = checkpoint.files.get(ALL_CONFIG)
    sizes = [weights for path in checkpoint.files.values() if (weights := weights_of(path)) is not None]
    largest = max(sizes, key=lambda weights: weights.trunk, default=None)
    return model_card(name, None if file is None else read_config(file), checkpoint.step, checkpoint.folder, largest)


def _sent(hub: Any, api: Any, repo_id: str, contents: Mapping[str, str | bytes], *, private: bool, branch: str | None, message: str) -> str:
    """Make the repository and the branch if need be, and send the files in one commit. The commit's address."""
    httpx = import_module("httpx")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if branch is not None and branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
        return str(api.create_commit(repo_id, operations, commit_message=message, revision=branch).commit_url)
    except hub.errors.HfHubHTTPError as error:
        raise _refused(repo_id, error) from error
    except (httpx.HTTPError, OSError) as error:
        raise DataError(
            f"{api.endpoint} cannot be reached: {error_text(error, first_line=True)}.",
            "Connect; HF_ENDPOINT names another hub, and HF_HUB_OFFLINE=1 forbids all.",
        ) from error
    except ValueError as error:
        raise UsageError(f"{repo_id} cannot be written: {error_text(error, first_line=True)}.", "Correct the name.") from error


def _refused(repo_id: str, error: Any) -> SttrlError:
    """The error for what the hub answered: a token that may not write there, or another refusal."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = error_text(error, first_line=True)
    if status in (401, 403):
        return UsageError(f"The token may not write to {repo_id}: {text}.", f"Take one with write access there. {LOG_IN}")
    return DataError(f"The hub did not take {repo_id}: {text}.", "Run the same command again; what it has already is not sent twice.")
