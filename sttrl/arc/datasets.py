"""The named data sets of ARC tasks, one on each line, their releases, and where they are found."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sttrl.arc.files import SUFFIXES, is_json
from sttrl.arc.layouts import CHALLENGES
from sttrl.config.data import DATA_SET
from sttrl.config.extensions import installed
from sttrl.data.registry import DATASETS, HubSource
from sttrl.data.sources import DATA_VARIABLE, data_folders
from sttrl.errors import DataError

DEMO_FOLDER = Path(__file__).parent / "demo"
"""The data set that comes with the package."""

_INNER = "arc"
"""A folder of data sets may keep those of ARC in a folder of this name."""

_LOOKS_LIKE_ARC = re.compile(rb'"(?:input|output)"\s*:\s*\[\s*\[\s*-?\d')
_PEEKED_BYTES = 2**16


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of a data set. ``outputs``: all test outputs; ``fingerprint``: see `sttrl.arc.tasks.fingerprint`, None: not known."""

    name: str
    tasks: int
    outputs: int
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class ArcDataset:
    """A named data set. ``file``: the name of its challenges file up to ``_challenges.json``; ``clone``: its folder in a clone of its
    repository; ``origin``: where its files come from. ``folder``: where it always is, for what comes with the package. ``hub``: where it is
    on the hub."""

    name: str
    file: str
    origin: str
    releases: tuple[Release, ...]
    clone: str | None = None
    folder: Path | None = None
    hub: HubSource | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Where to look for it in a folder of data sets, in this order."""
        files = tuple(f"{inner}{self.file}{CHALLENGES}{suffix}" for inner in ("", f"{_INNER}/") for suffix in SUFFIXES)
        return files if self.clone is None else (*files, self.clone, f"{_INNER}/{self.clone}")


_ARC_1 = "https://github.com/fchollet/ARC-AGI (commit 3990304)"
_ARC_2 = "https://github.com/arcprize/ARC-AGI-2 (commit f3283f7)"
_CONCEPT = "https://github.com/victorvikram/ConceptARC (commit b22ef52)"
_ENTRIES = (
    ArcDataset(
        name="ARC-AGI-1-training",
        file="arc-agi_training",
        clone="ARC-AGI/data/training",
        hub=HubSource(repo="eturok/ARC-AGI-1", split="train"),
        origin=_ARC_1,
        releases=(
            Release(name="3990304", tasks=400, outputs=416, fingerprint="845d7e8587bf3884b7bfa64674c43955d50a5929123a0e7cc8475ab94f54188e"),
        ),
    ),
    ArcDataset(
        name="ARC-AGI-1-evaluation",
        file="arc-agi_evaluation",
        clone="ARC-AGI/data/evaluation",
        hub=HubSource(repo="eturok/ARC-AGI-1", split="eval"),
        origin=_ARC_1,
        releases=(
            Release(name="3990304", tasks=400, outputs=419, fingerprint="3715a4da901674f2c39a2a7cac4d2608d22cfa7ff780950f11e872a3a341089e"),
        ),
    ),
    ArcDataset(
        name="ARC-AGI-2-training",
        file="arc-agi_training2",
        clone="ARC-AGI-2/data/training",
        hub=HubSource(repo="eturok/ARC-AGI-2", split="train"),
        origin=_ARC_2,
        releases=(
            Release(
                name="f3283f7", tasks=1000, outputs=1076, fingerprint="6f295548783aec110fc256c9fe59e064790c75b09af189dad3f7cb823e836b33"
            ),
        ),
    ),
    ArcDataset(
        name="ARC-AGI-2-evaluation",
        file="arc-agi_evaluation2",
        clone="ARC-AGI-2/data/evaluation",
        hub=HubSource(repo="eturok/ARC-AGI-2", split="eval"),
        origin=_ARC_2,
        releases=(
            Release(
                name="2025-05-15, f3283f7",
                tasks=120,
                outputs=167,
                fingerprint="5b7eafef110f9f713618150b0431e1e9b2a0402d1657985ac378cbb2ccc7f25a",
            ),
            Release(name="before 2025-05-15", tasks=120, outputs=172),
        ),
    ),
    ArcDataset(
        name="ConceptARC",
        file="arc-agi_concept",
        origin=_CONCEPT,
        releases=(
            Release(
                name="b22ef52 without MinimalTasks",
                tasks=160,
                outputs=480,
                fingerprint="8a7a0263ba73a039b171e4254225a9c32ef5ec0970d15f4c1f0109d33f4acab6",
            ),
        ),
    ),
    ArcDataset(
        name="arc-demo",
        file="arc-demo",
        folder=DEMO_FOLDER,
        origin=_ARC_1,
        releases=(
            Release(
                name="six tasks of 3990304",
                tasks=6,
                outputs=6,
                fingerprint="436df91b78407a3b93b95952dd440c23794b704a5b3765920a0410f031aeceba",
            ),
        ),
    ),
    ArcDataset(
        name="arc-demo-others",
        file="arc-demo-others",
        folder=DEMO_FOLDER,
        origin=_ARC_1,
        releases=(Release(name="six other tasks of 3990304", tasks=6, outputs=7),),
    ),
)

ARC_DATASETS: dict[str, ArcDataset] = {entry.name: entry for entry in _ENTRIES}
"""The named data sets, by name."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a data set compares with a known release. ``same`` True: the same tasks; False: other tasks; None: only the counts are known."""

    dataset: str
    release: Release
    same: bool | None

    def __str__(self) -> str:
        said = {True: "the same tasks", False: "the same counts, but other tasks", None: "the same counts"}[self.same]
        return f"{self.dataset}, release {self.release.name} ({said})"


def find_path(dataset: str, data_dir: Path | None) -> Path:
    """The file or folder of a data set: a name of `ARC_DATASETS`, or a path. Raises DataError, which says where to get the files."""
    known = ARC_DATASETS.get(dataset)
    if known is None:
        path = Path(dataset).expanduser()
        if not path.exists():
            raise _unknown(dataset)
        return path
    if known.folder is not None:
        return known.folder / f"{known.file}{CHALLENGES}.json"
    folders = data_folders(data_dir)
    for path in (folder / place for folder in folders for place in known.places):
        if path.exists():
            return path
    looked = f"is not in {' or '.join(map(str, folders))}" if folders else "is in no folder that was named"
    looked += "" if known.hub is not None else ", and on no hub"
    remedy = f"Put {known.places[0]} and its solutions" + (f", or {known.clone}," if known.clone else "") + " into a folder"
    raise DataError(f"{dataset} {looked}.", f"{remedy} and give that with --data_dir or {DATA_VARIABLE}; they come from {known.origin}.")


def match_of(dataset: str, tasks: int, outputs: int, fingerprint: str) -> Match | None:
    """The known release with these tasks, or else with these counts; those of the named data set come first."""
    named = sorted(ARC_DATASETS.values(), key=lambda entry: entry.name != dataset)
    matches = [
        Match(dataset=entry.name, release=release, same=None if release.fingerprint is None else release.fingerprint == fingerprint)
        for entry in named
        for release in entry.releases
        if (release.tasks, release.outputs) == (tasks, outputs)
    ]
    return next((match for match in matches if match.same), matches[0] if matches else None)


def is_arc(dataset: str) -> bool:
    """Whether ``--dataset`` means ARC tasks: a name or nearly one, a folder, a challenges file, or JSON that begins with grids."""
    of_others = installed(DATA_SET, (*ARC_DATASETS, *DATASETS))
    if dataset in ARC_DATASETS or dataset in DATASETS:
        return dataset in ARC_DATASETS
    if dataset in of_others or DATA_SET.reference(dataset) is not None:
        return False
    path = Path(dataset).expanduser()
    if path.is_dir():
        return True
    if dataset.lower().endswith(tuple(f"{CHALLENGES}{suffix}" for suffix in SUFFIXES)):
        return True
    return _begins_with_grids(path) if path.is_file() else bool(_near(dataset))


def _begins_with_grids(path: Path) -> bool:
    if not is_json(path):
        return False
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            return _LOOKS_LIKE_ARC.search(file.read(_PEEKED_BYTES)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def _near(name: str) -> list[str]:
    lowered: Mapping[str, str] = {known.lower(): known for known in ARC_DATASETS}
    return [lowered[close] for close in get_close_matches(name.lower(), lowered, n=1, cutoff=0.75)]


def _unknown(name: str) -> DataError:
    meant = _near(name)
    suggestion = f"Did you mean {meant[0]}? " if meant else ""
    forms = f"Known: {', '.join(ARC_DATASETS)}; or a challenges file, a task file, or a folder of task files."
    return DataError(f"There is no ARC data set, file or folder {name!r}.", suggestion + forms)
