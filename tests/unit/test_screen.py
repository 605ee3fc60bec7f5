"""Progress: plain lines where nobody watches, and on a terminal one line that is always up to date below them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sttrl.run.screen import Screen, State, state_line


def test_the_line_names_what_is_under_way_and_the_time_left() -> None:
    state = State(done=3, total=9, before=1, doing={"q4": "step 2", "q5": "evaluating the base"})
    assert state_line(state, seconds=60.0) == "3/9 done | q4: step 2 | q5: evaluating the base | about 0:03:00 left"


@pytest.mark.parametrize(("done", "before"), [(0, 0), (2, 2), (9, 0)])
def test_there_is_no_guess_before_a_problem_is_done_nor_after_the_last(done: int, before: int) -> None:
    assert "left" not in state_line(State(done=done, total=9, before=before), seconds=60.0)


def test_many_problems_under_way_are_counted() -> None:
    doing = {f"q{number}": "step 1" for number in range(6)}
    assert state_line(State(done=0, total=9, before=0, doing=doing), 1.0).endswith("q3: step 1 | 2 more")


def test_where_there_is_no_terminal_there_are_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        screen.show(State(done=0, total=1, before=0))
        screen.say("[bold]a line[/bold] of text")
    assert capsys.readouterr() == ("", "[bold]a line[/bold] of text\n")


def test_on_a_terminal_lines_stay_and_the_last_one_goes() -> None:
    with Screen() as screen:
        screen.console = Console(file=io.StringIO(), force_terminal=True, width=40, highlight=False, markup=False)
        screen.show(State(done=0, total=2, before=0, doing={"q": "step 1"}))
        screen.say("[1/2] a line")
        screen.show(State(done=1, total=2, before=0, doing={"q": "a state that is far too long for one line of a terminal"}))
        written = screen.console.file.getvalue()  # type: ignore[attr-defined]
        assert "0/2 done | q: step 1" in written and "[1/2] a line\n" in written and "1/2 done" in written
        assert max(map(len, written.replace("\r", "\n").split("\n"))) < 60, "it never takes a second line"
    assert screen.live is None
