"""marc's file of predictions, ``all_predictions.json``, as a source of a pool.

``{"<task>-<test input>-<prompt>": [{"output": ..., "inverter": ..., "formatter": ...}, ...]}``. marc maps a grid back to the task before it
writes the file, so an ``output`` that is a grid is taken as it is. One that is a text is a reply: it is read as its formatter wrote, and
mapped back by its inverter. Nothing in the file is executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sttrl.arc.candidates import Find, candidates_of
from sttrl.arc.codecs.base import Codec, Unreadable
from sttrl.arc.codecs.colour_words import ColourWords
from sttrl.arc.codecs.numpy_text import NumpyText
from sttrl.arc.grids import Grid, as_grid, fault_of
from sttrl.arc.marc_vote import marc_vote
from sttrl.arc.pool import Place, Searched, Source
from sttrl.arc.submission import read_json, shown_id
from sttrl.arc.tasks import Task
from sttrl.arc.views.key import View
from sttrl.arc.views.marc import BACK_TURN, INFERENCE_VIEWS
from sttrl.errors import DataError

KEY: Final = re.compile(r"(?P<task>.+)-(?P<test>[0-9]{1,9})-(?P<prompt>[0-9]{1,9})", re.DOTALL)
"""A key of the file. An id may have dashes of its own."""
INVERTERS: Final[Mapping[str, View]] = {"identity": View(), **INFERENCE_VIEWS, "Rotate(270)": BACK_TURN}
"""What maps a reply back to the task, by marc's names; null in the file is the identity."""
FORMATTERS: Final[Mapping[str, Codec]] = {
    "WordGridRepresenter": ColourWords(),
    "DiffExampleRepresenter": NumpyText(difference=True),
    "": NumpyText(),
}
"""How a reply was written, by a word in the text of its formatter; the first one that is there."""


def predictions_source(path: Path, tasks: Sequence[Task]) -> Source:
    """The predictions of a file, in the order of their prompts; its own attempts are those of marc's vote.

    Raises:
        DataError: a file that is not in this format, or a test input that the tasks do not have.
    """
    asked = {(task.id, k): query for task in tasks for k, query in enumerate(task.tests)}
    read = [(*place_of(key, path, asked), key, entries) for key, entries in read_json(path, "marc's predictions").items()]
    finds: dict[Place, list[Find]] = {}
    unreadable = 0
    for place, prompt, key, entries in sorted(read, key=lambda one: one[:2]):
        if not isinstance(entries, list):
            raise DataError(f"{path}, {shown_id(key)} is not a list of predictions.", "Give marc's all_predictions.json.")
        for number, entry in enumerate(entries):
            grid, group = prediction(entry, asked[place], f"{path}, {shown_id(key)}, prediction {number + 1}")
            unreadable += grid is None
            if grid is not None:
                finds.setdefault(place, []).append(Find(view=f"{prompt}.{number}", grid=grid, nll=math.nan, group=group))
    candidates = {place: candidates_of(found) for place, found in finds.items()}
    return Source(
        name=str(path),
        tasks=len({task for (task, _), *_ in read}),
        found={place: Searched(candidates=found, eligible=frozenset(c.grid for c in found)) for place, found in candidates.items()},
        answers={place: marc_vote(found).attempts for place, found in candidates.items()},
        has_nlls=False,
        unreadable=unreadable,
    )


def place_of(key: str, path: Path, asked: Mapping[Place, Grid]) -> tuple[Place, int]:
    """The test input that a key names, and the number of the prompt."""
    match = KEY.fullmatch(key)
    if match is None:
        raise DataError(f"{path}: {shown_id(key)} is not <task>-<test input>-<prompt>.", "Give marc's all_predictions.json.")
    place = match["task"], int(match["test"])
    if place not in asked:
        what = f"test input {place[1] + 1} of task {shown_id(place[0])}"
        raise DataError(f"{path}: the data set has no {what}.", "Give the --dataset that the predictions are about.")
    return place, int(match["prompt"])


def prediction(entry: Any, query: Grid, where: str) -> tuple[Grid | None, str | None]:
    """The grid of a prediction in the space of the task, None if it is no grid, and the group in which it votes."""
    if not isinstance(entry, dict) or "output" not in entry:
        raise DataError(f"{where} is not an object with an output.", "Give marc's all_predictions.json.")
    name = "identity" if entry.get("inverter") is None else entry["inverter"]
    if not isinstance(name, str) or name not in INVERTERS:
        raise DataError(f"{where} has the unknown inverter {str(name)[:40]!r}.", f"Known: null, {', '.join(INVERTERS)}.")
    inverter = INVERTERS[name]
    return grid_of_output(entry, inverter, query), inverter.inverse().vote_group if inverter.ops else None


def grid_of_output(entry: Mapping[str, Any], inverter: View, query: Grid) -> Grid | None:
    """The grid of an output; None if it is none."""
    output = entry["output"]
    if not isinstance(output, str):
        return None if fault_of(output) else as_grid(output)
    formatter = str(entry.get("formatter"))
    codec = next(codec for word, codec in FORMATTERS.items() if word in formatter)
    read = codec.read(output, inverter.invert(query))
    return None if isinstance(read, Unreadable) else inverter.apply(read)
