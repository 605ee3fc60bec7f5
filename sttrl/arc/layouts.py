"""Recognises how a path holds tasks, and reads their JSON, unchecked and with the test outputs that task files hold."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sttrl.arc.files import SUFFIXES, Fault, Fields, FileContent, is_json, read_json, shown_id, stem
from sttrl.errors import DataError, error_text

Layout = Literal["kaggle", "task file", "task folder", "re-arc", "collection", "flat pairs"]

LAYOUTS: Mapping[Layout, str] = {
    "kaggle": "a challenges file (Kaggle), with its solutions in a second file",
    "task file": "one task file, with its outputs inside",
    "task folder": "a folder of task files, with their outputs inside",
    "re-arc": "re-arc: tasks/ID.json, each a list of pairs, and metadata.json",
    "collection": "neoneye's collection: data/*/ID.json, of which the highest revision counts",
    "flat pairs": "flat pairs: each file a list of pairs",
}
"""What each layout is."""

CHALLENGES, SOLUTIONS = "_challenges", "_solutions"
"""How the names of a pair of Kaggle files end, before ``.json``."""

_REVISION = re.compile(r"(?P<id>.+)_v(?P<number>\d{1,6})")
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The JSON of one task or of one file of pairs. ``difficulties``: re-arc's measure of each pair, where it was asked for."""

    id: str
    file: str
    value: object = field(repr=False)
    difficulties: tuple[float, ...] | None = None

    @property
    def is_flat(self) -> bool:
        """Whether this is a list of pairs."""
        return isinstance(self.value, list)

    def fault(self, problem: str, place: str | None = None, task: str | None = None) -> Fault:
        """Something wrong here."""
        return Fault(file=self.file, task=self.id if task is None else task, place=place, problem=problem)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a path holds. ``entries``: sorted by id; ``sha256``: of the files' contents; ``path``: the file or the folder that was read."""

    path: Path
    layout: Layout
    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    sha256: str


def read_contents(path: Path, difficulties: bool = False) -> Contents:
    """Read the tasks of a file or folder. ``difficulties``: those of re-arc's pairs too.

    Raises DataError if there is no such path, or if a folder holds no tasks or more than one data set.
    """
    if path.is_file():
        return _one_file(path)
    if not path.is_dir():
        raise DataError(f"There is no file or folder {path}.", "Correct the path.")
    if challenges := [file for file in _files(path) if stem(file).endswith(CHALLENGES)]:
        return _one_file(_only(path, challenges))
    if files := _files(path / "tasks"):
        return _re_arc(path, files, difficulties)
    if files := [*_files(path / "data"), *(file for folder in _folders(path / "data") for file in _files(folder))]:
        return _collection(path, files)
    if files := _files(path):
        return _folder(path, files)
    inner = [folder.name for folder in _folders(path) if _files(folder)]
    named = f"Name one of its folders: {', '.join(inner[:_LISTED])}." if inner else "Give a challenges file or a folder of task files."
    raise DataError(f"{path} holds no task files.", named)


def solutions_files(challenges: Path) -> tuple[Path, ...]:
    """Where the solutions of a challenges file may be: beside it, compressed or not."""
    name = stem(challenges)
    name = name.removesuffix(CHALLENGES) if name.endswith(CHALLENGES) else name
    return tuple(challenges.with_name(f"{name}{SOLUTIONS}{suffix}") for suffix in SUFFIXES)


def _one_file(path: Path) -> Contents:
    if not is_json(path):
        raise DataError(f"{path} is no kind of file that can be read.", f"Its name should end in {' or '.join(SUFFIXES)}.")
    content = read_json(path)
    if isinstance(content, Fault):
        return _contents(path, "kaggle", [], [content], [])
    value, sha256 = content.value, content.sha256
    if isinstance(value, list) or _is_task(value):
        layout: Layout = "flat pairs" if isinstance(value, list) else "task file"
        return _contents(path, layout, [Entry(id=stem(path), file=str(path), value=value)], [], [sha256])
    if not isinstance(value, Fields) or not any(map(_is_task, value.values())):
        return _contents(path, "kaggle", [], [Fault(file=str(path), problem=_no_tasks(value))], [sha256])
    entries = [Entry(id=name, file=str(path), value=task) for name, task in value.items() if name not in value.repeated]
    faults = [Fault(file=str(path), task=name, problem="the id is in the file more than once") for name in value.repeated]
    return _contents(path, "kaggle", entries, faults, [sha256])


def _re_arc(path: Path, files: Sequence[Path], difficulties: bool) -> Contents:
    found = _folder(path, files)
    measured: Mapping[str, object] = {}
    if difficulties:
        metadata = read_json(path / "metadata.json")
        if isinstance(metadata, Fault):
            return _contents(path, "re-arc", [], [metadata], [found.sha256])
        measured = metadata.value if isinstance(metadata.value, Fields) else {}
    entries = [
        Entry(id=entry.id, file=entry.file, value=entry.value, difficulties=_difficulties(measured.get(entry.id)))
        for entry in found.entries
    ]
    return Contents(path=path, layout="re-arc", entries=tuple(entries), faults=found.faults, sha256=found.sha256)


def _difficulties(metadata: object) -> tuple[float, ...] | None:
    numbers = metadata.get("pso_difficulties") if isinstance(metadata, Fields) else None
    if not isinstance(numbers, list) or not all(isinstance(number, int | float) for number in numbers):
        return None
    return tuple(map(float, numbers))


def _collection(path: Path, files: Sequence[Path]) -> Contents:
    """Of files in one folder that differ in ``_vN`` only, the one with the highest number; no ``_vN`` is the lowest."""
    newest: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for file in files:
        match = _REVISION.fullmatch(stem(file))
        name, number = (match["id"], int(match["number"])) if match else (stem(file), 0)
        newest.setdefault((file.parent, name), []).append((number, file))
    kept = [(name, file) for (_, name), found in newest.items() for number, file in found if number == max(found)[0]]
    return _read_all(path, "collection", kept)


def _folder(path: Path, files: Sequence[Path]) -> Contents:
    found = _read_all(path, "task folder", [(stem(file), file) for file in files])
    if not found.entries or not found.entries[0].is_flat:
        return found
    return Contents(path=path, layout="flat pairs", entries=found.entries, faults=found.faults, sha256=found.sha256)


def _read_all(path: Path, layout: Layout, files: Iterable[tuple[str, Path]]) -> Contents:
    """One task a file. ``files``: ids and files."""
    named = sorted(files, key=lambda item: (item[0], str(item[1])))
    count = Counter(name for name, _ in named)
    entries: list[Entry] = []
    digests: list[str] = []
    faults = [Fault(file=str(file), task=name, problem=f"{count[name]} files have this id") for name, file in named if count[name] > 1]
    for name, file in named:
        content = read_json(file)
        if isinstance(content, FileContent):
            digests.append(f"{name} {content.sha256}")
            if not isinstance(content.value, list) and not _is_task(content.value):
                content = Fault(file=str(file), problem=_no_tasks(content.value))
        if isinstance(content, Fault):
            faults.append(content)
        elif count[name] == 1:
            entries.append(Entry(id=name, file=str(file), value=content.value))
    return _contents(path, layout, entries, faults, digests)


def _contents(path: Path, layout: Layout, entries: Iterable[Entry], faults: Iterable[Fault], digests: Sequence[str]) -> Contents:
    sha256 = digests[0] if len(digests) == 1 and path.is_file() else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    ordered = tuple(sorted(entries, key=lambda entry: entry.id))
    return Contents(path=path, layout=layout, entries=ordered, faults=tuple(faults), sha256=sha256)


def _is_task(value: object) -> bool:
    return isinstance(value, Fields) and ("train" in value or "test" in value)


def _no_tasks(value: object) -> str:
    """Why a JSON value holds no tasks."""
    if isinstance(value, Fields) and value and all(isinstance(grids, list) for grids in value.values()):
        return f"it has lists of grids and no tasks, like a solutions file; give the file whose name ends in {CHALLENGES}.json"
    return 'it holds no ARC tasks: there is no "train" and no "test", nor a list of pairs'


def _files(folder: Path) -> list[Path]:
    return [file for file in _inside(folder) if is_json(file)]


def _folders(folder: Path) -> list[Path]:
    return [inner for inner in _inside(folder) if inner.is_dir()]


def _inside(folder: Path) -> list[Path]:
    """What a folder holds, by name; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error_text(error)}.", "May you read it?") from error


def _only(path: Path, files: Sequence[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    named = ", ".join(shown_id(file.name) for file in files[:_LISTED])
    raise DataError(f"{path} holds {len(files)} challenges files: {named}.", "Name one of them.")
