"""Finished tasks of a run as a source of a pool, read from its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sttrl.arc.candidates import Find, candidates_of, promising, with_experts
from sttrl.arc.grids import Grid
from sttrl.arc.pool import Place, Searched, Source
from sttrl.arc.problem import ViewChoice, views_of
from sttrl.arc.records import TestRecord, grid_of, record_from_json
from sttrl.arc.tasks import Task
from sttrl.arc.views.key import IDENTITY, View
from sttrl.errors import UsageError
from sttrl.ledger.folder import KIND, read_config
from sttrl.ledger.journal import read_finished
from sttrl.ledger.records import QuestionRecord

Stage = Literal["adapted", "base"]
"""Which policy of a run: the adapted one, or the base."""


def read_arc_config(folder: Path) -> dict[str, Any]:
    """The settings of a run of ARC tasks. Raises `JournalError` for a folder that holds no run, and `UsageError` for another kind."""
    config = read_config(folder)
    if config.get(KIND) != "arc":
        raise UsageError(f"{folder} is not a run of ARC tasks.", "`pool` is for ARC tasks; `report` compares runs of any kind.")
    return config


def run_source(folder: Path, config: Mapping[str, Any], tasks: Sequence[Task], stage: Stage) -> Source:
    """What a run found. ``tasks``: those of its data set. An adapted policy that found nothing, or failed, has what the base found."""
    of_id = {task.id: task for task in tasks}
    found: dict[Place, Searched] = {}
    answers: dict[Place, tuple[Grid, ...]] = {}
    records = [question.record for question in read_finished(folder, record_from_json)]
    for record in records:
        view_V = views_of(ViewChoice.of(config), of_id[record.id], "views")
        order = {view.key: number for number, view in reversed(list(enumerate(view_V)))}
        for k, test in enumerate(tests_of(record, stage)):
            found[record.id, k] = searched(test, order, config["most_candidates"])
            answers[record.id, k] = test.attempts
    return Source(name=str(folder), tasks=len(records), found=found, answers=answers)


def tests_of(record: QuestionRecord, stage: Stage) -> list[TestRecord]:
    """What was found for each test input of a finished task; empty if no evaluation was made."""
    if record.answer_source is None:
        return []
    base: Sequence[TestRecord] = record.polls["base"].tests
    final: Sequence[TestRecord] = base if stage == "base" else record.polls[record.answer_source].tests
    return [test if test.candidates else base[k] for k, test in enumerate(final)]


def searched(test: TestRecord, order: Mapping[str, int], most: int) -> Searched:
    """The candidates of a test input in the order in which the run found them.

    ``order``: the number of each view. ``most``: how many candidates the run scored at most. Grids that only marc's vote made are left out.
    Of the replies of one view the likeliest is first; `sample` alone has another order.
    """
    finds = [
        Find(view=view, grid=grid_of(record.grid), nll=nll, group=vote_group(view))
        for record in test.candidates
        for view, nll in record.search_nll.items()
    ]
    found = candidates_of(sorted(finds, key=lambda find: (order.get(find.view, len(order)), find.nll)))
    nll_of = {grid_of(record.grid): dict(record.expert_nll) for record in test.candidates}
    candidates = with_experts(found, [nll_of[candidate.grid] for candidate in found])
    return Searched(candidates=candidates, eligible=frozenset(candidate.grid for candidate in promising(candidates, most)))


def vote_group(key: str) -> str | None:
    """The group in which a view votes in marc's vote."""
    group = View.read(key).vote_group
    return None if group == IDENTITY else group
