"""Runs of ARC tasks in which what one view found is a guess in the others, on the stand-in engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arc_stand_in import ArcStandIn, arc_attempt, arc_config, handed_in
from test_arc_runs import results_of, two_tests


def test_guesses_change_the_cost_and_not_the_answers(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"dataset": str(two_tests(tmp_path / "data")), "views": 4, "min_prob": 0.03}
    plain, guided = ArcStandIn(), ArcStandIn()
    arc_attempt(arc_config(tmp_path / "plain", **chosen), plain)
    arc_attempt(arc_config(tmp_path / "guided", search_guess="lowest_nll", **chosen), guided)
    given = [request for request in guided.requests if request.given_T]
    assert not any(request.given_T for request in plain.requests)
    assert len(given) == 3 * (1 + 2) * 2, "one for each view but the first, test input and stage"
    assert handed_in(tmp_path / "plain") == handed_in(tmp_path / "guided")
    for one, other in zip(results_of(tmp_path / "plain"), results_of(tmp_path / "guided"), strict=True):
        for stage in ("base", "adapted"):
            assert {**one["polls"][stage], "counts": None} == {**other["polls"][stage], "counts": None}
    tokens = [json.loads((tmp_path / name / "summary.json").read_text())["counts"]["tokens decoded"] for name in ("plain", "guided")]
    assert tokens[1] < tokens[0]
