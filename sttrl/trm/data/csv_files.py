"""Puzzles with one solution each in CSV files: train.csv and test.csv with the columns source, question, answer and rating."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

import numpy as np

from sttrl.data.hub import REPO, check_reachable
from sttrl.data.registry import HubSource
from sttrl.errors import DataError, DataRowError, error_text
from sttrl.trm.data.format import Array

COLUMNS = ("source", "question", "answer", "rating")
"""The columns of a file. The names in its first line count; where these are others, the order."""

_LONGEST_BOARD = 10_000


@dataclass(frozen=True, kw_only=True)
class Boards:
    """Puzzles and their solutions as ASCII codes, (puzzles, cells). ``lines``: the row of the file of each, from 1 after the header."""

    file: Path
    questions: Array
    answers: Array
    lines: Array

    def fault(self, number: int, field: str, problem: str) -> DataRowError:
        """The error for one puzzle."""
        return DataRowError(str(self.file), int(self.lines[number]), field, problem, "Correct the file.")

    def chosen(self, numbers: Array) -> Boards:
        """Some of the puzzles."""
        return Boards(file=self.file, questions=self.questions[numbers], answers=self.answers[numbers], lines=self.lines[numbers])


def find_file(source: str, split: str) -> Path:
    """The CSV file of a split, in a folder or from the hub. Raises DataError."""
    folder = Path(source).expanduser()
    names = (f"{split}.csv", f"{split}.csv.gz")
    if folder.is_dir():
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise DataError(
                f"{folder} has no {names[0]}.", "--source-repo is a folder with train.csv and test.csv, or a data set on the hub."
            )
        return found
    if not REPO.fullmatch(source):
        raise DataError(f"There is no folder {source}.", "--source-repo is a folder with train.csv and test.csv, or org/name on the hub.")
    return _from_hub(source, names[0])


def read_boards(file: Path, least_rating: int | None = None) -> Boards:
    """Read a file, or its puzzles with at least that rating. Raises DataError for a file, DataRowError for a row that cannot be read."""
    questions, answers = bytearray(), bytearray()
    lines: list[int] = []
    cells: int | None = None
    for number, (_, question, answer, rating) in enumerate(_rows(file), start=1):
        if least_rating is not None and _rating(file, number, rating) < least_rating:
            continue
        cells = len(question) if cells is None else cells
        for field, text in (("question", question), ("answer", answer)):
            if len(text) != cells or not 0 < cells <= _LONGEST_BOARD:
                raise DataRowError(str(file), number, field, f"it has {len(text)} characters, and others have {cells}", "Correct the file.")
            if not text.isascii():
                raise DataRowError(str(file), number, field, "it has characters that are not ASCII", "Correct the file.")
        questions += question.encode()
        answers += answer.encode()
        lines.append(number)
    if cells is None:
        hint = "Give a file with puzzles." if least_rating is None else f"Lower --min-difficulty ({least_rating} now)."
        raise DataError(f"{file} has no puzzles{'' if least_rating is None else ' rated so high'}.", hint)
    return Boards(
        file=file,
        questions=np.frombuffer(questions, dtype=np.uint8).reshape(-1, cells),
        answers=np.frombuffer(answers, dtype=np.uint8).reshape(-1, cells),
        lines=np.array(lines),
    )


def subsample(boards: Boards, size: int | None, draws: np.random.RandomState) -> Boards:
    """So many of the puzzles, drawn at random; all of them if there are no more."""
    if size is None or size >= len(boards.questions):
        return boards
    return boards.chosen(draws.choice(len(boards.questions), size=size, replace=False))


def _rows(file: Path) -> Iterator[Sequence[str]]:
    """The rows after the first line, their cells in the order of `COLUMNS`."""
    with closing(_open(file)) as opened:
        reader = csv.reader(opened, strict=True)
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            places = _places(file, header)
            for number, row in enumerate((row for row in reader if row), start=1):
                if len(row) != len(header):
                    problem = f"has {len(row)} cells, and the first line has {len(header)}"
                    raise DataRowError(str(file), number, "line", problem, "Correct the file.")
                yield ["" if place is None else row[place] for place in places]
        except (csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file} cannot be read near line {reader.line_num + 1}: {error_text(error)}.", "Is the file whole?") from error


def _places(file: Path, header: Sequence[str]) -> list[int | None]:
    """Where each of `COLUMNS` is; None for source or rating where the file has none."""
    if {"question", "answer"} <= set(header):
        return [header.index(name) if name in header else None for name in COLUMNS]
    if len(header) != len(COLUMNS):
        raise DataError(f"{file} has no columns question and answer.", f"Its first line should be {','.join(COLUMNS)}.")
    return list(range(len(COLUMNS)))


def _open(file: Path) -> IO[str]:
    try:
        opened: IO[bytes] = gzip.open(file) if file.suffix == ".gz" else file.open("rb")  # type: ignore[assignment]  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error_text(error)}.", "May you read it?") from error
    return io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")


def _rating(file: Path, number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataRowError(str(file), number, "rating", f"it is {text[:40]!r} and should be a number", "Correct the file.") from error


def _from_hub(repo: str, name: str) -> Path:
    """Fetch a file from the hub, or find it in the hub's cache."""
    hint = f"Where there is a network: hf download {repo} --repo-type dataset --local-dir FOLDER; then --source-repo FOLDER."
    try:
        hub = import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise DataError(f"{repo} needs the package huggingface_hub.", "pip install huggingface_hub, or name a folder.") from error
    check_reachable(HubSource(repo=repo), hint)
    try:
        return Path(hub.hf_hub_download(repo, name, repo_type="dataset", endpoint=os.environ.get("HF_ENDPOINT")))
    except (OSError, ValueError) as error:
        raise DataError(f"{name} of {repo} did not come from the hub: {error_text(error, first_line=True)}.", hint) from error
