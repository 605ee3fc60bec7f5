"""Data sets on the Hugging Face hub, read with the package ``datasets``, which runs no code of a data set."""

from __future__ import annotations

import os
import re
import socket
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sttrl.data.registry import HubSource
from sttrl.data.rows import RawRow
from sttrl.errors import DataError, UsageError, error_text

REPO = re.compile(r"[\w.-]+/[\w.-]+")
"""The name of a repository of the hub: ORGANISATION/NAME."""
_COMMIT = re.compile("[0-9a-f]{40}")
_FORM = re.compile(rf"hf:(?P<repo>{REPO.pattern})(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[^:]*))?(?::(?P<split>[^:]*))?")
_SPLITS = ("train", "validation", "test")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def parse_hub_source(text: str) -> HubSource:
    """Read ``hf:org/name[@revision][:config][:split]``. In ``hf:org/name:test``, "test" is the split, not the config."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--dataset {text!r} is not hf:org/name[@revision][:config][:split].", "Example: hf:openai/gsm8k:main:test.")
    config, split = match["config"] or None, match["split"] or None
    if split is None and config in _SPLITS:
        config, split = None, config
    return HubSource(repo=match["repo"], revision=match["revision"], config=config, split=split)


def read_hub(source: HubSource, remedy: str) -> tuple[list[RawRow], str | None]:
    """Return the rows that ``source`` selects, and their commit if it is known.

    Raises DataError, with ``remedy`` as its hint, if they cannot be loaded.
    """
    split = _load(source, remedy)
    return _selected(source, split), _commit(source, split)


def _commit(source: HubSource, split: Any) -> str | None:
    """The commit of the loaded rows: the name of the folder in which the package keeps them.

    Raises DataError if it is not the commit that was asked for: without a network the package loads any commit in its cache.
    """
    files = getattr(split, "cache_files", None) or [{"filename": ""}]
    found, asked = Path(files[0]["filename"]).parent.name, source.revision or ""
    if not _COMMIT.fullmatch(found):
        return asked if _COMMIT.fullmatch(asked) else None
    if _COMMIT.fullmatch(asked) and asked != found:
        raise DataError(f"{source.repo} is in the cache at {found}, not at {asked}.", "Connect, so that it can be fetched.")
    return found


def _selected(source: HubSource, split: Any) -> list[RawRow]:
    rows = [RawRow(row=number, value=dict(row)) for number, row in enumerate(split, start=1)]
    if source.where is not None:
        column, wanted = source.where
        rows = [raw for raw in rows if isinstance(raw.value, dict) and raw.value.get(column) == wanted]
    if source.convert is None:
        return rows
    return [RawRow(row=raw.row, value=source.convert(raw.value)) for raw in rows if isinstance(raw.value, dict)]


def _load(source: HubSource, remedy: str) -> Any:
    try:
        datasets = import_module("datasets")
    except ModuleNotFoundError as error:
        raise DataError(f"{source.repo} needs the package datasets.", f"pip install datasets, or: {remedy}") from error
    check_reachable(source, remedy)
    try:
        found = datasets.load_dataset(source.repo, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        text = error_text(error, first_line=True)
        raise DataError(f"{source.repo} did not come from the hub: {text}.", _gated(source, text) + remedy) from error
    return found if source.split is not None else _only_split(source, found)


def check_reachable(source: HubSource, remedy: str) -> None:
    """Raise DataError at once if there is no network: the hub's client would retry for half a minute."""
    if import_module("huggingface_hub").is_offline_mode() or any(os.environ.get(name) for name in _PROXIES):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        hint = f"{remedy} Where it is in the hub's cache, HF_HUB_OFFLINE=1 finds it."
        raise DataError(f"{source.repo} did not come from the hub: {host} cannot be reached.", hint) from error


def _gated(source: HubSource, text: str) -> str:
    page = f"https://huggingface.co/datasets/{source.repo}"
    return f"Accept its terms at {page} and log in with `hf auth login`, or: " if "gated" in text else ""


def _only_split(source: HubSource, splits: Any) -> Any:
    if len(splits) == 1:
        return next(iter(splits.values()))
    if "test" in splits:
        return splits["test"]
    named = ", ".join(sorted(splits))
    raise DataError(f"{source.repo} has the splits {named}.", f"Name one: hf:{source.repo}:{source.config or ''}:SPLIT.")
