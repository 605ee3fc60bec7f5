"""The page as HTML: templates, styles and program of `sttrl/report/templates`, and for a file of its own all that it shows.

A file holds the JSON of the runs as text, and the JSON of each question compressed (gzip, base64), so that a browser unpacks a question
only when it is opened.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from sttrl.report.html import json_in_html, templates, visible_json
from sttrl.report.read import RunContent
from sttrl.report.view.details import Pieces, question_view
from sttrl.report.view.overview import key_of, run_view

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
PROGRAM: Final = ("elements", "source", "filters", "charts", "grids", "overview", "sweep", "samples", "question", "list", "main")
"""The files of the page's program, in the order in which they are needed."""
MOST_MIB: Final = 32
"""A file holds the samples of as many questions as fit into this, compressed and in base64; the page says how many it leaves out."""
SERVED: Final = "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
ALONE: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "


def served_page(title: str) -> str:
    """The page that asks a server for what it shows."""
    return _page(title, SERVED, index=None, runs=(), blocks=())


def page_alone(
    title: str,
    runs: Sequence[tuple[str, RunContent, Mapping[str, Any], Pieces | None]],
    comparison: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Any] | None = None,
) -> str:
    """The page as one file that loads nothing. ``runs``: of each run its name, what was loaded, its summary and its tokenizer."""
    views, blocks, room = list[tuple[str, dict[str, Any]]](), list[tuple[str, str]](), MOST_MIB * 2**20
    for name, run, summary, pieces in runs:
        view = run_view(name, run, summary)
        left_out = 0
        key = key_of(name)
        for problem_id, block in _blocks(run, pieces):
            if len(block) > room:
                left_out += 1
                continue
            room -= len(block)
            blocks.append((f"question-{key}-{key_of(problem_id)}", block))
        if left_out:
            view["remarks"].append(
                f"The samples of {left_out} questions are not in this file: it would be larger than {MOST_MIB} MiB. "
                "`python main.py view` with the run folder shows all of them."
            )
        views.append((key, view))
    known = [{"key": key, "name": view["name"], "version": ""} for key, view in views]
    index = {
        "runs": known,
        "shown": [run["key"] for run in (known[:1] if sweep else known)],
        "comparison": comparison,
        "sweep": sweep,
    }
    return _page(title, ALONE, index, views, blocks)


def packed(value: Any) -> str:
    """A JSON value as text for a block of the page: gzip in base64."""
    return base64.b64encode(gzip.compress(as_text(visible_json(value)), compresslevel=6, mtime=0)).decode()


def as_text(value: Any) -> bytes:
    """A JSON value as bytes. Half of a surrogate pair, which a model may write, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _blocks(run: RunContent, pieces: Pieces | None) -> Iterator[tuple[str, str]]:
    for problem_id in [*(question.record.id for question in run.finished), *run.running]:
        yield problem_id, packed(question_view(run, problem_id, pieces))


def _page(
    title: str,
    policy: str,
    index: Mapping[str, Any] | None,
    runs: Iterable[tuple[str, Mapping[str, Any]]],
    blocks: Iterable[tuple[str, str]],
) -> str:
    program = _program()
    # Only this program runs, whatever a text on the page may hold.
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    return templates().get_template("view.html").render(
        title=title,
        policy=f"{policy}script-src 'sha256-{digest}'",
        styles=Markup(_styles()),
        index=None if index is None else json_in_html(index),
        runs=[(key, json_in_html(run)) for key, run in runs],
        blocks=[(name, Markup(block)) for name, block in blocks],
        program=Markup(program),
    )  # fmt: skip


@cache
def _styles() -> str:
    return "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "view.css"))


@cache
def _program() -> str:
    files = [(TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in PROGRAM]
    return "\n".join(['"use strict";', "(() => {", *files, "})();"])
