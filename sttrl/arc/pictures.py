"""Pictures of grids: coloured text for a terminal, digits where there are no colours, SVG for pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from sttrl.arc.grids import Grid, shape
from sttrl.arc.tasks import Task

COLOUR_NAMES = ("black", "blue", "red", "green", "yellow", "grey", "magenta", "orange", "light blue", "brown")
"""The names of the colours 0 to 9."""
COLOUR_CODES = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25")
"""The colours 0 to 9 as ARC's own pages show them."""

_LINE_COLOUR = "#555555"
_ARROW = " -> "
_INDENT = 2


def grid_lines(grid: Grid, cell: int = 2) -> list[Text]:
    """A grid as a line of coloured text for each row. ``cell``: characters a cell. The text is the digits, in the cell's own colour,
    so that they show where colours do not."""
    return [Text.assemble(*((str(colour).ljust(cell), _style(colour)) for colour in row)) for row in grid]


def task_lines(task: Task, width: int) -> list[Text]:
    """A task as lines of text: each demonstration as input -> output, then each test input. ``width``: of the terminal, in characters."""
    cell = _cell(task, width - _INDENT)
    lines: list[Text] = []
    for number, pair in enumerate(task.demos, start=1):
        lines.append(Text(f"demonstration {number}: {_size(pair.input)} -> {_size(pair.output)}"))
        lines += _beside(grid_lines(pair.input, cell), grid_lines(pair.output, cell))
        lines.append(Text())
    for number, grid in enumerate(task.tests, start=1):
        lines.append(Text(f"test {number}: {_size(grid)} -> ?"))
        lines += [Text(" " * _INDENT) + line for line in grid_lines(grid, cell)]
        lines.append(Text())
    return lines[:-1]


def beside(pictures: Sequence[tuple[str, Grid]]) -> list[Text]:
    """Grids side by side as lines of text, with a few words above each."""
    blocks = [[Text(words), *grid_lines(grid)] for words, grid in pictures]
    widths = [max(line.cell_len for line in block) + 3 for block in blocks]
    height = max(map(len, blocks), default=0)
    return [Text.assemble(*(_padded(block, row, width) for block, width in zip(blocks, widths, strict=True))) for row in range(height)]


def _padded(block: Sequence[Text], row: int, width: int) -> Text:
    """A line of a block, or blanks below it, filled up to a width."""
    line = block[row].copy() if row < len(block) else Text()
    line.append(" " * (width - line.cell_len))
    return line


def shown(lines: Sequence[Text], colours: bool) -> str:
    """Lines of text for a terminal: with ANSI colours, or plain."""
    if not colours:
        return "\n".join(line.plain.rstrip() for line in lines)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="truecolor", width=10_000, no_color=False, legacy_windows=False)
    for line in lines:
        console.print(line, end="\n", soft_wrap=True)
    return screen.getvalue().removesuffix("\n")


def grid_svg(grid: Grid, cell: int = 12) -> str:
    """A grid as an ``<svg>`` element for a page. ``cell``: the side of a cell in pixels."""
    rows, columns = shape(grid)
    paths = "".join(
        f'<path fill="{COLOUR_CODES[colour]}" d="{_area(grid, colour)}"/>' for colour in sorted({c for row in grid for c in row})
    )
    lines = "".join(f"M0 {row}h{columns}" for row in range(rows + 1)) + "".join(f"M{column} 0v{rows}" for column in range(columns + 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * cell}" height="{rows * cell}" viewBox="0 0 {columns} {rows}" '
        f'role="img" aria-label="grid of {rows} x {columns} cells" shape-rendering="crispEdges">'
        f'{paths}<path fill="none" stroke="{_LINE_COLOUR}" stroke-width="0.06" d="{lines}"/></svg>'
    )


def _area(grid: Grid, colour: int) -> str:
    """The outline of all cells of a colour: a rectangle for each horizontal run."""
    runs: list[str] = []
    for number, row in enumerate(grid):
        start = 0
        for value, cells in groupby(row):
            length = len(tuple(cells))
            if value == colour:
                runs.append(f"M{start} {number}h{length}v1h-{length}z")
            start += length
    return "".join(runs)


def _style(colour: int) -> str:
    return f"{COLOUR_CODES[colour]} on {COLOUR_CODES[colour]}"


def _size(grid: Grid) -> str:
    rows, columns = shape(grid)
    return f"{rows} x {columns}"


def _cell(task: Task, width: int) -> int:
    """Two characters a cell if that leaves room for every demonstration on one line, else one."""
    widest = max((shape(pair.input)[1] + shape(pair.output)[1] for pair in task.demos), default=0)
    return 2 if 2 * widest + len(_ARROW) <= width else 1


def _beside(left: list[Text], right: list[Text]) -> list[Text]:
    """Two blocks of lines side by side, with an arrow in the middle row."""
    height = max(len(left), len(right))
    blank = Text(" " * left[0].cell_len)
    middle = (height - 1) // 2
    return [
        Text(" " * _INDENT)
        + (left[row] if row < len(left) else blank)
        + Text(_ARROW if row == middle else " " * len(_ARROW))
        + (right[row] if row < len(right) else Text())
        for row in range(height)
    ]
