"""Pictures, drawn with matplotlib. Importing it takes longer than the rest of a report, so it is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final, Literal, get_args

PictureFormat = Literal["png", "svg"]
COLOUR: Final = "#1f5fae"
"""The colour of the data in a picture."""
PICTURE_FORMATS: Final = get_args(PictureFormat)


def drawn(figure: Any, file_format: PictureFormat, salt: str) -> bytes:
    """A figure as the bytes of a file, the same for the same figure. ``salt``: makes the ids of two figures on one page different."""
    from matplotlib import rc_context

    file = BytesIO()
    unsaid = {"Date": None, "Creator": None, "Format": None, "Type": None} if file_format == "svg" else {}
    with rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(file, format=file_format, dpi=150, metadata=unsaid)
    return file.getvalue()


def inline(figure: Any, salt: str) -> str:
    """A figure as an SVG element for a page. Black becomes the page's text colour, so it fits light and dark mode."""
    text = drawn(figure, "svg", salt).decode().replace("#000000", "currentColor")
    return text[text.index("<svg") :]


def curves(points: Mapping[str, Sequence[tuple[float, float]]]) -> Any:
    """A plot of numbers from 0 to 1 over steps, with a line for each label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    for label, point_S in points.items():
        axes.plot(*zip(*point_S, strict=True), label=label, marker=".")
    axes.set(ylim=(-0.03, 1.03), xlabel="steps")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
