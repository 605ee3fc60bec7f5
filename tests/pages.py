"""What tests of the page share: runs as they are loaded, without a folder, and what a page holds."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from sttrl.ledger.journal import JournalContent
from sttrl.ledger.records import FinishedQuestion
from sttrl.report import Grades, summarise
from sttrl.report.kinds import QuestionReport
from sttrl.report.labels import Labels
from sttrl.report.read import RunContent
from sttrl.report.texts import NO_TEXTS, Texts
from sttrl.report.view.details import Pieces
from sttrl.report.view.page import page_alone


class WithTexts(QuestionReport):
    """Text questions with given texts."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def shown(self, finished: Any, grades: Grades, data: Any, labels: Labels | None) -> Texts:
        """The given texts."""
        return self.texts


def loaded(
    finished: Sequence[FinishedQuestion], grades: Grades, config: Mapping[str, Any] | None = None, folder: Path = Path("run"),
    texts: Texts = NO_TEXTS, seconds: Mapping[str, float] | None = None, **changes: Any,
) -> RunContent:  # fmt: skip
    """A run of these questions."""
    journal = JournalContent(finished=tuple(finished), trained=0, ended=None, steps={}, evaluations={})
    content: dict[str, Any] = {
        "folder": folder, "config": {"dataset": "gone.jsonl", **(config or {})}, "kind": WithTexts(texts), "journal": journal,
        "attempt_seconds": seconds or {}, "data": None, "labels": None, "unread": None, "grades": grades,
    }  # fmt: skip
    return RunContent(**{**content, **changes})


def page_of(run: RunContent, name: str = "run", pieces: Pieces | None = None) -> str:
    """The page of one run."""
    return page_alone(name, [(name, run, summarise(run.finished, run.grades, run.seconds, run.config), pieces)])


@dataclass(frozen=True)
class Held:
    """What a page holds: its index, its runs, and each question that can be opened, by run and place."""

    index: dict[str, Any]
    runs: list[dict[str, Any]]
    details: list[list[dict[str, Any]]]


def held(page: str) -> Held:
    """What a page of one file holds. Every JSON value in it is read as the page's own program reads it."""
    values = dict(re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', page, re.DOTALL))
    blocks = dict(re.findall(r'<script type="application/gzip" id="([^"]+)">(.*?)</script>', page))
    index = json.loads(values["index"])
    keys = [run["key"] for run in index["runs"]]
    runs = [json.loads(values[f"run-{key}"]) for key in keys]
    names = [[f"question-{key}-{row['key']}" for row in run["questions"]] for key, run in zip(keys, runs, strict=True)]
    details = [[json.loads(gzip.decompress(base64.b64decode(blocks[name]))) for name in own if name in blocks] for own in names]
    return Held(index, runs, details)


def around(page: str) -> str:
    """A page without the values that it holds, and without its program and styles."""
    return unescape(re.sub(r"(<(script|style)[^>]*>).*?(</\2>)", r"\1\3", page, flags=re.DOTALL))
