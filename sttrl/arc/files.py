"""JSON files of tasks: their contents, or what is wrong with them."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sttrl.data.files import MAX_FILE_BYTES
from sttrl.errors import DataError, error_text

SUFFIXES = (".json", ".json.gz")
"""The endings of files that are read; case does not matter."""

_LONGEST_PROBLEM = 200


class Fields(dict[str, object]):
    """A JSON object. ``repeated``: the keys that the file gives it more than once, in order."""

    repeated: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, object]]) -> Fields:
        """The object with these keys and values; of a repeated key the last value counts."""
        fields = cls(pairs)
        if len(fields) < len(pairs):
            fields.repeated = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return fields


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong in a file. ``task``: the id of the task; ``place``: where in the task. None: the file as a whole, the whole task."""

    file: str
    task: str | None = None
    place: str | None = None
    problem: str

    def __str__(self) -> str:
        task = None if self.task is None else f"task {shown_id(self.task)}"
        where = ", ".join(part for part in (self.file, task, self.place) if part is not None)
        problem = self.problem if len(self.problem) <= _LONGEST_PROBLEM else f"{self.problem[:_LONGEST_PROBLEM]}..."
        return f"{where}: {problem}."


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """The JSON value of a file, and the sha256 of its bytes (after decompression)."""

    value: object
    sha256: str


def read_json(path: Path) -> FileContent | Fault:
    """The content of a ``.json`` or ``.json.gz`` file, or why it cannot be read."""
    data = _bytes_of(path)
    if isinstance(data, Fault):
        return data
    value = _value_of(path, data)
    return value if isinstance(value, Fault) else FileContent(value=value, sha256=hashlib.sha256(data).hexdigest())


def first_of(faults: Sequence[Fault], dataset: str, data_dir: Path | None = None) -> DataError:
    """The error of a data set with faults: the first of them, how many more there are, and the command that lists them."""
    more = len(faults) - 1
    if not more:
        return DataError(str(faults[0]), "Correct the file.")
    command = f"python main.py data {dataset}" + ("" if data_dir is None else f" --data_dir {data_dir}")
    return DataError(str(faults[0]), f"There {'is 1 more fault' if more == 1 else f'are {more} more faults'}; `{command}` lists all.")


def shown_id(task: str) -> str:
    """An id as messages show it: as it is if it is short and plain, quoted and shortened otherwise."""
    return task if 0 < len(task) <= 80 and task.isprintable() and not task.isspace() else repr(task[:80])


def stem(path: Path) -> str:
    """The name of a file without ``.json`` or ``.json.gz``."""
    ending = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len)
    return path.name[: -len(ending)]


def is_json(path: Path) -> bool:
    """Whether a path is a file that can be read, by its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def _bytes_of(path: Path) -> bytes | Fault:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return Fault(file=str(path), problem=f"it cannot be read ({error_text(error)})")
    if len(data) > MAX_FILE_BYTES:
        return Fault(file=str(path), problem=f"it holds more than {MAX_FILE_BYTES // 2**20} MiB")
    return data if data.strip() else Fault(file=str(path), problem="the file is empty")


def _value_of(path: Path, data: bytes) -> object:
    try:
        return json.loads(data.removeprefix(codecs.BOM_UTF8).decode(), object_pairs_hook=Fields.of)
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "it is not JSON that can be read: nested too deep"
    except ValueError:
        problem = "it is not JSON that can be read: a number has too many digits"
    return Fault(file=str(path), problem=problem)
