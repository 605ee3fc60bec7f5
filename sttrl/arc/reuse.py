"""``--reuse RUN``: what another run has searched and scored with the same policy is taken from its journal, view by view.

ARChitects 2024 cache what was found for (prompt, threshold) and what (prompt, reply) scored, whatever the model. Here the model counts too.
A view that was searched with the same settings is not searched again, and a grid that was scored under a view is not scored again under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sttrl.arc.candidates import Candidate, Find
from sttrl.arc.grids import Grid
from sttrl.arc.pool_runs import read_arc_config, searched
from sttrl.arc.problem import ViewChoice, views_of
from sttrl.arc.records import record_from_json
from sttrl.arc.tasks import Task
from sttrl.config import RunConfig, to_plain
from sttrl.errors import UsageError
from sttrl.ledger.folder import CONFIG, REVISIONS
from sttrl.ledger.journal import read_finished

SAME_POLICY = ("model", "device", "dtype", "base_dtype", "codec", "drop_demos", "max_prompt_tokens")
"""Settings that decide what a policy is shown, and how it computes: another run must have the same ones."""
SAME_SEARCH = ("search", "min_prob", "beam_width")
"""Settings that decide what a search finds if nothing is cut. `sample` depends on seeds as well, and is never reused."""


@dataclass(frozen=True)
class Reused:
    """What is known of a test input. ``find_of``: by the view that was searched. ``nll_of``: by grid, then by the view that scored it."""

    find_of: Mapping[str, tuple[Find, ...]] = field(default_factory=dict)
    nll_of: Mapping[Grid, Mapping[str, float]] = field(default_factory=dict)

    def known(self, candidate: Candidate, view: str) -> bool:
        """Whether a candidate was scored under a view."""
        return view in self.nll_of.get(candidate.grid, {})

    def with_known(self, candidate: Candidate, nll: Mapping[str, float], views: Sequence[str]) -> dict[str, float]:
        """The NLLs of a candidate under ``views``, in their order: those scored now, and those that are known."""
        return {view: value for view in views if (value := nll.get(view, self.nll_of.get(candidate.grid, {}).get(view))) is not None}


NOTHING = Reused()
Known = Mapping[tuple[str, str, int], Reused]
"""By stage (base or adapted), id of the task and number of the test input."""


def known_of(config: RunConfig, tasks: Sequence[Task], revision: str | None, model: Path | None) -> dict[tuple[str, str, int], Reused]:
    """What the run of ``--reuse`` knows of the tasks; nothing without the flag.

    ``revision``: of the data set. ``model``: its folder. Raises `UsageError` for a run of another policy or of other tasks.
    """
    source = config.arc.reuse
    if source is None:
        return {}
    before, now = read_arc_config(source), to_plain(config)
    check_same(source, before, now, revision, model)
    same_search = before["search"] != "sample" and all(before[name] == now[name] for name in SAME_SEARCH)
    stages = ("base", "adapted") if same_adapters(config, source, before) else ("base",)
    of_id, chosen, known = {task.id: task for task in tasks}, ViewChoice.of(before), {}
    for record in (found.record for found in read_finished(source, record_from_json)):
        view_V = [view.key for view in views_of(chosen, of_id[record.id], "views")]
        order = {key: number for number, key in reversed(list(enumerate(view_V)))}
        for stage in (stage for stage in stages if stage in record.polls):
            for k, test in enumerate(record.polls[stage].tests):
                candidates = searched(test, order, before["most_candidates"]).candidates
                finds = [find for candidate in candidates for find in candidate.find_F]
                by_view = {key: tuple(sorted((f for f in finds if f.view == key), key=lambda f: f.nll)) for key in view_V}
                known[stage, record.id, k] = Reused(
                    find_of=by_view if same_search and not test.cut else {},
                    nll_of={candidate.grid: candidate.expert_nll for candidate in candidates},
                )
    return known


def check_same(source: Path, before: Mapping[str, Any], now: Mapping[str, Any], revision: str | None, model: Path | None) -> None:
    """Raises `UsageError` where a run is of other tasks, or its base is another one."""
    for name in SAME_POLICY:
        if before.get(name) != now[name]:
            raise UsageError(
                f"--reuse {source}: its --{name} is {before.get(name)}, and this run's is {now[name]}.", "Reuse a run of the same policy."
            )
    if before.get(REVISIONS[1]) != revision:
        raise UsageError(f"--reuse {source}: it is a run of other tasks than {now['dataset']}.", "Reuse a run of the same data set.")
    if model is not None:
        check_model(source, before.get(REVISIONS[0]), model)


def check_model(source: Path, commit: str | None, model: Path) -> None:
    """Raises `UsageError` where a model is another one under the same name. ``commit``: of a model from the hub, whose folder it names;
    None: a folder of the user's, of which no file may be newer than the run."""
    if commit is not None:
        if model.name != commit:
            raise UsageError(
                f"--reuse {source}: it has revision {commit} of the model, not {model.name}.", "Reuse a run of the same model."
            )
        return
    begun = (source / CONFIG).stat().st_mtime
    changed = sorted(file.name for file in model.glob("*") if file.suffix in (".json", ".safetensors") and file.stat().st_mtime > begun)
    if changed:
        raise UsageError(f"--reuse {source}: {model / changed[0]} is newer than that run.", "Search again with the new model.")


def same_adapters(config: RunConfig, source: Path, before: Mapping[str, Any]) -> bool:
    """Whether the adapted policies of this run are those of the other: its own adapters, or the same stored ones."""
    mine = config.stored.adapters
    theirs = Path(before["adapters"]) if before.get("adapters") else source
    return mine is not None and mine.resolve() == theirs.resolve()
