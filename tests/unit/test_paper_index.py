"""docs/paper_index.md names every paper that the code and the configurations cite, and where each is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "docs" / "paper_index.md"
ARXIV = re.compile(r"(?<![\d.])\d\d(?:0[1-9]|1[0-2])\.\d{5}(?!\d)")
"""Year, month, number."""
ROW = re.compile(r"^\| ([^|]+) \| \[([\d.]+)\]\((\S+)\) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = [match.groups() for match in ROW.finditer(INDEX.read_text(encoding="utf-8"))]
CITING = [*sorted((ROOT / "sttrl").rglob("*.py")), *sorted((ROOT / "configs" / "paper").glob("*.yaml"))]


def cited() -> Iterator[tuple[str, str]]:
    """Every arXiv number, and the file that names it."""
    for file in CITING:
        yield from ((number, str(file.relative_to(ROOT))) for number in ARXIV.findall(file.read_text(encoding="utf-8")))


def test_every_paper_that_is_cited_is_in_the_index() -> None:
    known = set(ARXIV.findall(INDEX.read_text(encoding="utf-8")))
    missing = {f"{number} ({file})" for number, file in cited() if number not in known}
    assert not missing, "add a line to docs/paper_index.md"


def test_citations_are_found() -> None:
    numbers = {number for number, _ in cited()}
    assert {"2504.16084", "2505.12392"} <= numbers and len(numbers) > 5


def test_a_paper_has_one_line() -> None:
    lines = INDEX.read_text(encoding="utf-8").splitlines()
    assert len(ROWS) == sum(line.startswith("| ") for line in lines) - lines.count("| paper | arXiv | what of it | where |")
    numbers = [row[1] for row in ROWS]
    assert len(numbers) == len(set(numbers)) > 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_line_leads_to_the_paper_and_to_what_uses_it(row: tuple[str, str, str, str, str]) -> None:
    name, number, address, _, places = row
    assert address == f"https://arxiv.org/abs/{number}"
    targets = [(INDEX.parent / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", places)]
    assert targets
    for target in targets:
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        assert number in text or name.lower() in text.lower(), f"{target} does not mention {name} or {number}"
