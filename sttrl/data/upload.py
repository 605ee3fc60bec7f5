"""Uploads files to a repository of the hub, in one commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from sttrl.data.hub import REPO
from sttrl.errors import DataError, SttrlError, UsageError, error_text

LOG_IN: Final = "Log in with `hf auth login`, set HF_TOKEN, or give --token."

RepoType = Literal["model", "dataset"]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where files go. ``repo_id``: ORGANISATION/NAME, a repository that is made if need be.

    ``private`` concerns a new repository; one that exists keeps what it is. ``token``: else HF_TOKEN, or that of `hf auth login`.
    ``path_in_repo``: a folder there. ``branch``: made if need be. ``endpoint``: else HF_ENDPOINT, or the hub.
    """

    repo_id: str
    private: bool = True
    token: str | None = field(default=None, repr=False)
    commit_message: str | None = None
    path_in_repo: str = ""
    branch: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where files are now: the commit's address. ``files`` are paths in the repository."""

    url: str
    files: tuple[str, ...]


def check_destination(to: Destination) -> str:
    """The token that is to be used. Raises `UsageError` for a wrong name, or without a token."""
    if not REPO.fullmatch(to.repo_id):
        raise UsageError(f"{to.repo_id!r} is no repository of the hub.", "Give ORGANISATION/NAME.")
    known = to.token or _hub().get_token()
    if known is None:
        raise UsageError("There is no token for the hub.", LOG_IN)
    return str(known)


def upload(files: Mapping[str, Path | str], to: Destination, message: str, repo_type: RepoType = "model") -> Pushed:
    """Send files in one commit. ``files``: by their names there, each a path or a text. ``message``: of the commit, unless ``to`` has one.

    Raises what `check_destination` raises, UsageError for a token that may not write there, and DataError where the hub refuses.
    """
    token = check_destination(to)
    prefix = f"{to.path_in_repo.strip('/')}/" if to.path_in_repo.strip("/") else ""
    contents = {
        f"{prefix}{name}": str(content) if isinstance(content, Path) else content.encode(errors="backslashreplace")
        for name, content in files.items()
    }
    api = _hub().HfApi(endpoint=to.endpoint or os.environ.get("HF_ENDPOINT") or None, token=token)
    url = _sent(api, contents, to, to.commit_message or message, repo_type)
    return Pushed(url=url, files=tuple(sorted(contents)))


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError("The hub needs the package huggingface_hub, which is not installed.", "pip install huggingface_hub") from error


def _sent(api: Any, contents: Mapping[str, str | bytes], to: Destination, message: str, repo_type: RepoType) -> str:
    """Make the repository and the branch if need be, and send the files. The commit's address."""
    hub, httpx = _hub(), import_module("httpx")
    try:
        api.create_repo(to.repo_id, private=to.private, exist_ok=True, repo_type=repo_type)
        if to.branch is not None and to.branch != "main":
            api.create_branch(to.repo_id, branch=to.branch, exist_ok=True, repo_type=repo_type)
        operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
        commit = api.create_commit(to.repo_id, operations, commit_message=message, revision=to.branch, repo_type=repo_type)
        return str(commit.commit_url)
    except hub.errors.HfHubHTTPError as error:
        raise _refused(to.repo_id, error) from error
    except (httpx.HTTPError, OSError) as error:
        raise DataError(
            f"{api.endpoint} cannot be reached: {error_text(error, first_line=True)}.",
            "Connect; HF_ENDPOINT names another hub, and HF_HUB_OFFLINE=1 forbids all.",
        ) from error
    except ValueError as error:
        raise UsageError(f"{to.repo_id} cannot be written: {error_text(error, first_line=True)}.", "Correct the name.") from error


def _refused(repo_id: str, error: Any) -> SttrlError:
    """The error for what the hub answered: a token that may not write there, or another refusal."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = error_text(error, first_line=True)
    if status in (401, 403):
        return UsageError(f"The token may not write to {repo_id}: {text}.", f"Take one with write access there. {LOG_IN}")
    return DataError(f"The hub did not take {repo_id}: {text}.", "Run the same command again; what it has already is not sent twice.")
