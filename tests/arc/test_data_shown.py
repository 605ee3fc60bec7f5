"""ARC data sets: what the check prints, and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from arc_files import A, B, C, read, save, task
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sttrl.arc.check import check
from sttrl.arc.grids import as_grid
from sttrl.arc.pictures import COLOUR_CODES, grid_lines, grid_svg, shown, task_lines
from sttrl.arc.sources import ArcSpec
from sttrl.arc.tasks import Pair, Task
from sttrl.cli import main


@pytest.fixture
def shown_set(tmp_path: Path) -> Path:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": C}), "b": task({"input": [[1, 1]]}, {"input": B})})
    save(tmp_path / "x_solutions.json", {"a": [[[9]]], "b": [B, B]})
    return file


def test_what_the_check_prints(shown_set: Path) -> None:
    found = check(ArcSpec(dataset=str(shown_set)))
    data = read(shown_set)
    assert found.faults == ()
    assert found.text.splitlines() == [
        "data set    x",
        f"source      {shown_set}",
        "layout      a challenges file (Kaggle), with its solutions in a second file",
        "release     none that is known",
        "tasks       2",
        "demos       4, 2 a task",
        "tests       3, 1 to 2 a task",
        "grids       11 without solutions; 1 to 2 rows (median 1), 1 to 3 columns (median 2)",
        "colours     1 blue 16.7%, 2 red 8.3%, 3 green 8.3%, 4 yellow 8.3%, 5 grey 20.8%, 6 magenta 12.5%, 7 orange 12.5%, "
        "8 light blue 12.5%",
        f"solutions   2 of 2 tasks have one, in {shown_set.parent}/x_solutions.json",
        f"fingerprint {data.fingerprint} (of the tasks, without solutions)",
        f"files       sha256 {data.sha256}",
        "faults      none",
        "example     (a) solutions are not shown",
        "demonstration 1: 2 x 2 -> 1 x 1",
        "  1 2  -> 5",
        "  3 4",
        "",
        "demonstration 2: 1 x 1 -> 1 x 3",
        "  5  -> 6 7 8",
        "",
        "test 1: 1 x 3 -> ?",
        "  6 7 8",
    ]


def test_colours_where_the_terminal_has_them(shown_set: Path) -> None:
    def text(**options: Any) -> str:
        return check(ArcSpec(dataset=str(shown_set)), Console(file=io.StringIO(), width=80, **options)).text

    assert "\x1b[" in text(force_terminal=True, color_system="truecolor")
    assert "\x1b[" not in text(force_terminal=True, color_system="truecolor", no_color=True)
    assert "\x1b[" not in text()


def test_the_command_lists_all_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": [[]]}), "b": task({"input": [[10]]}), "c": task({"input": A})})
    assert main(["data", str(file)]) == 3
    out, err = capsys.readouterr()
    assert f"  {file}, task a, test 1, input: row 1 is empty.\n  {file}, task b, test 1, input: row 1, column 1 is 10," in out
    assert err == "error: The data set has 2 faults, listed above. Correct the files.\n"


def test_the_command_refuses_flags_for_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "arc-demo"]) == 0
    assert "(5582e5ca)" in capsys.readouterr().out
    assert main(["data", "arc-demo", "--id_column", "x"]) == 2
    assert capsys.readouterr().err == "error: --id_column does nothing for the ARC tasks of arc-demo. Leave it out.\n"


grids = st.integers(1, 30).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=30)
)


@given(grids, st.integers(1, 3))
def test_lines_of_a_grid_hold_its_digits(rows: list[list[int]], cell: int) -> None:
    lines = grid_lines(as_grid(rows), cell)
    assert [[int(line.plain[at]) for at in range(0, len(line.plain), cell)] for line in lines] == rows


@given(grids)
def test_an_svg_covers_every_cell_once(rows: list[list[int]]) -> None:
    root = ElementTree.fromstring(grid_svg(as_grid(rows), cell=10))
    assert (root.get("width"), root.get("height")) == (str(10 * len(rows[0])), str(10 * len(rows)))
    painted: dict[tuple[int, int], int] = {}
    for path in list(root)[:-1]:
        for run in (path.get("d") or "").split("z")[:-1]:
            place, length = run[1:].split("v")[0].split("h")
            column, row = map(int, place.split())
            for step in range(int(length)):
                assert (row, column + step) not in painted
                painted[row, column + step] = COLOUR_CODES.index(path.get("fill") or "")
    assert painted == {(row, column): cell for row, cells in enumerate(rows) for column, cell in enumerate(cells)}


def test_wide_grids_fit_into_eighty_characters() -> None:
    wide = tuple((0,) * 30 for _ in range(2))
    lines = task_lines(Task(id="a", demos=(Pair(input=wide, output=wide),), tests=(wide,)), width=80)
    assert max(line.cell_len for line in lines) <= 80
    assert shown(lines, colours=False).splitlines()[1] == f"  {'0' * 30} -> {'0' * 30}"


def test_a_colour_on_the_screen_is_the_one_of_the_page() -> None:
    said: Callable[[int], str] = lambda number: ";".join(str(int(COLOUR_CODES[number][at : at + 2], 16)) for at in (1, 3, 5))  # noqa: E731
    assert f"48;2;{said(4)}m" in shown(grid_lines(((4,),)), colours=True)
