"""The rows of a sweep's table: runs that differ only in their seed are one row, with one score.

A question's numbers are averaged over the seeds first. So intervals are over questions, however many seeds there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from sttrl.config import PRESETS, RunConfig, has_effect, to_plain
from sttrl.ledger.folder import FREE, TRAINED_ON
from sttrl.ledger.journal import read_lines
from sttrl.questions.records import METRICS
from sttrl.report.layout import NOTHING
from sttrl.report.metrics import QuestionScore, RowName, by_first_vote, score_questions
from sttrl.report.runs import report_run
from sttrl.report.statistics import interval_of_gain, p_value_of_gain
from sttrl.report.view.details import FindPieces, no_pieces

_PLACES: Final = frozenset({"output_dir", "run_name", "config", "track", "data_dir", TRAINED_ON})
"""Settings that say where files are, and what follows from another setting; they never tell runs apart."""
_LEADING: Final = ("dataset", "model", "adaptation_method", "preset", "voting_function")
_LONGEST_CELL: Final = 28
_SAME_TOKENS: Final[tuple[RowName, ...]] = ("vote_same_tokens", "confidence_same_tokens")
"""The votes of the base with the tokens that adapting took: by majority, and by confidence."""


@dataclass(frozen=True, kw_only=True)
class SweepScore:
    """The numbers of one run, or of several that differ only in their seed, in the order of the table.

    Accuracies are None without labels; those of the adapted policy are None if the run does not adapt. ``questions`` counts distinct
    questions, ``finished`` counts a question once per run. ``seconds_per_question`` is None if no attempt ran to its end.
    """

    metric: str
    base_mean: float | None
    vote_majority: float | None
    vote_confidence: float | None
    adapted_mean: float | None
    gain_mean: float | None
    gain_low: float | None
    gain_high: float | None
    p_value: float | None
    adapted_majority: float | None
    above_vote_mean: float | None
    above_vote_low: float | None
    above_vote_high: float | None
    above_vote_p: float | None
    above_confidence_mean: float | None
    above_confidence_low: float | None
    above_confidence_high: float | None
    above_confidence_p: float | None
    right_first: int
    right_base: float | None
    right_adapted: float | None
    wrong_first: int
    wrong_base: float | None
    wrong_adapted: float | None
    tokens_per_question: float | None
    seconds_per_question: float | None
    questions: int
    finished: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One run of a sweep. ``timed``: how many of its questions finished in an attempt whose seconds are known. ``pictures``: for a
    terminal, of a kind of problem that has some."""

    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    scores: Sequence[QuestionScore]
    timed: int
    pictures: str = ""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """Runs that differ only in their seed. ``settings``: the settings in which rows differ; ``cells``: these as text."""

    settings: dict[str, Any]
    cells: tuple[str, ...]
    label: str
    runs: tuple[ScoredRun, ...]
    score: SweepScore
    by_seed: tuple[SweepScore, ...]


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings in which runs differ, ``seed`` included. The setting that changes most rarely comes first, as in the axes of a file.

    Settings that change only the speed count only if runs differ in nothing else, because a sweep may be continued with other ones. A
    preset is only a name of settings, but the one that readers know.
    """
    changes = {name: sum(a.get(name) != b.get(name) for a, b in pairwise(configs)) for name in configs[0] if name not in _PLACES}
    found = [name for name in changes if len(_values(name, configs)) > 1]
    found.sort(key=lambda name: (_LEADING.index(name) if name in _LEADING else len(_LEADING), changes[name]))
    decisive = [name for name in found if name not in FREE or name == "preset"]
    return tuple(decisive if len({_key(config, decisive) for config in configs}) == len(configs) else found)


def sweep_rows(runs: Sequence[ScoredRun], settings: Sequence[str]) -> list[SweepRow]:
    """Group runs that are equal in ``settings`` into rows, in the order of their first runs."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(_key(run.config, settings), []).append(run)
    columns = {name: _column(name, [group[0].config for group in groups.values()]) for name in settings}
    return [_row(group, {name: cells[number] for name, cells in columns.items()}) for number, group in enumerate(groups.values())]


def score_together(runs: Sequence[ScoredRun]) -> SweepScore:
    """One score for runs that differ only in their seed."""
    metric = main_metric(runs)
    before_P = list(_by_question(runs, "base", metric, beside="adapted").values())
    after_P = list(_by_question(runs, "adapted", metric, beside="base").values())
    ends = interval_of_gain(before_P, after_P)

    def mean_of(row: RowName, metric: str) -> float | None:
        return fmean(values.values()) if (values := _by_question(runs, row, metric, beside=row)) else None

    above_vote, above_confidence = (above_same_tokens(runs, row) for row in _SAME_TOKENS)
    scores = [score for run in runs for score in run.scores]
    right, wrong = (by_first_vote(scores, kind) for kind in (True, False))
    finished = sum(run.summary["questions"]["total"] for run in runs)
    tokens = sum(run.summary["tokens"]["sampled"] + run.summary["tokens"]["trained"] for run in runs)
    seconds = sum(run.summary["seconds"]["total"] - run.summary["seconds"]["start_up"] for run in runs)
    return SweepScore(
        metric=metric,
        base_mean=mean_of("base", metric),
        vote_majority=mean_of("vote_same_tokens", "maj@k"),
        vote_confidence=mean_of("confidence_same_tokens", "maj@k"),
        adapted_mean=mean_of("adapted", metric),
        gain_mean=fmean(after_P) - fmean(before_P) if before_P else None,
        gain_low=None if ends is None else ends.low,
        gain_high=None if ends is None else ends.high,
        p_value=p_value_of_gain(before_P, after_P),
        adapted_majority=mean_of("adapted", "maj@k"),
        **_fields("above_vote", above_vote),
        **_fields("above_confidence", above_confidence),
        right_first=right.questions,
        right_base=right.base,
        right_adapted=right.adapted,
        wrong_first=wrong.questions,
        wrong_base=wrong.base,
        wrong_adapted=wrong.adapted,
        tokens_per_question=tokens / finished if finished else None,
        seconds_per_question=seconds / timed if (timed := sum(run.timed for run in runs)) else None,
        questions=len({score.id for score in scores}),
        finished=finished,
        failed=finished - sum(run.summary["questions"]["done"] for run in runs),
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher one row scores than another: the mean over the questions that both have, with its interval and p-value.

    The score of a row is that of its adapted policy, or of the base if the row adapts nothing.
    """

    mean: float
    low: float
    high: float
    p_value: float


def difference(row: SweepRow, other: SweepRow) -> Difference | None:
    """How far a row is above another; None if they share no question with a label."""
    return _paired(_final(other), _final(row))


def above_same_tokens(runs: Sequence[ScoredRun], vote: RowName) -> Difference | None:
    """How far maj@k of the adapted policy is above a vote of the base with the tokens that adapting took; None where one is missing."""
    return _paired(_by_question(runs, vote, "maj@k", beside="adapted"), _by_question(runs, "adapted", "maj@k", beside=vote))


def _paired(others: Mapping[str, float], own: Mapping[str, float]) -> Difference | None:
    """The difference own - others over the questions that both have; None if there is none."""
    shared = [question for question in own if question in others]
    before_P, after_P = [others[question] for question in shared], [own[question] for question in shared]
    ends, p_value = interval_of_gain(before_P, after_P), p_value_of_gain(before_P, after_P)
    if ends is None or p_value is None:
        return None
    return Difference(mean=fmean(after_P) - fmean(before_P), low=ends.low, high=ends.high, p_value=p_value)


def _fields(name: str, found: Difference | None) -> dict[str, float | None]:
    """A difference as fields of `SweepScore`."""
    values = (None,) * 4 if found is None else (found.mean, found.low, found.high, found.p_value)
    return dict(zip((f"{name}_{end}" for end in ("mean", "low", "high", "p")), values, strict=True))


def _final(row: SweepRow) -> dict[str, float]:
    metric = row.score.metric
    adapted = _by_question(row.runs, "adapted", metric, beside="adapted")
    return adapted or _by_question(row.runs, "base", metric, beside="base")


def score_run(folder: Path, data: Any = None, find_pieces: FindPieces = no_pieces) -> ScoredRun:
    """Write a run's report, and return what the rows need. ``data``: its data set, if it was read already.

    Raises `JournalError` for a folder that holds no run.
    """
    report = report_run(folder, data=data, find_pieces=find_pieces)
    found = report.run
    ended = {line["attempt"] for line in read_lines(folder) if line["kind"] == "attempt"}
    return ScoredRun(
        name=folder.name,
        config=found.config,
        summary=found.summary,
        scores=score_questions(found.finished, found.grades),
        pictures=report.pictures,
        timed=sum(question.record.attempt in ended for question in found.finished),
    )


def _key(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """The values of settings as one text, so that they can be compared and hashed."""
    return json.dumps([config.get(name) for name in names], sort_keys=True)


def _values(name: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The distinct values of a setting, among the runs on which it has an effect."""
    return {_key(config, [name]): config.get(name) for config in configs if has_effect(name, config)}


def _row(runs: Sequence[ScoredRun], shown: Mapping[str, str]) -> SweepRow:
    settings = {name: runs[0].config.get(name) for name in shown}
    # A text is shown alone (sttrl), any other value with its setting (steps 2).
    told = _told_by_preset(runs[0].config) if "preset" in shown else set()
    named = {name: cell for name, cell in shown.items() if cell != NOTHING and name not in told}
    worded = [cell if isinstance(settings[name], str) else f"{name} {cell}" for name, cell in named.items()]
    return SweepRow(
        settings=settings,
        cells=tuple(shown.values()),
        label=", ".join(worded) or "all runs",
        runs=tuple(runs),
        score=score_together(runs),
        by_seed=tuple(score_together([run]) for run in runs),
    )


def _told_by_preset(config: Mapping[str, Any]) -> set[str]:
    """The settings whose values a label leaves out: those of the run's preset, or without one the defaults but method and vote."""
    preset = PRESETS.get(config["preset"]) if config.get("preset") is not None else None
    expected = to_plain(RunConfig()) | ({} if preset is None else dict(preset.settings))
    told = {name for name, value in expected.items() if _key(config, [name]) == _key({name: value}, [name])}
    return told - ({"adaptation_method", "voting_function"} if preset is None else {"preset"})


def _column(name: str, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A setting's cells, shortened if different values stay different."""
    values = [config.get(name) if has_effect(name, config) else None for config in configs]
    whole = [setting_text(value) for value in values]
    short = [text.rstrip("/").split("/")[-1][:_LONGEST_CELL] for text in whole]
    return short if len(set(short)) == len(set(whole)) else whole


def main_metric(runs: Sequence[ScoredRun]) -> str:
    """The metric of the columns base, adapted and gain: that of the kind of problem, or of questions if nothing was evaluated."""
    names = (poll.names for run in runs for score in run.scores for poll in (score.base, score.adapted) if poll is not None)
    return next((each.main for each in names), METRICS.main)


def setting_text(value: object) -> str:
    """A setting's value as one line."""
    if value is None or isinstance(value, bool):
        return NOTHING if value is None else "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())


def _by_question(runs: Sequence[ScoredRun], row: RowName, metric: str, beside: RowName) -> dict[str, float]:
    """A metric of the row ``row``, for each question, averaged over the seeds that have both this row and the row ``beside``."""
    found: dict[str, list[float]] = {}
    for score in (score for run in runs for score in run.scores):
        poll, other = score.row(row), score.row(beside)
        value = None if poll is None or other is None else poll.metrics.get(metric)
        if value is not None:
            found.setdefault(score.id, []).append(value)
    return {question: fmean(values) for question, values in found.items()}


def common_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings with one value in all runs that is not the default; data set, model and val_samples are always among them."""
    defaults = {**to_plain(RunConfig()), "dataset": None, "model": None, "val_samples": None}
    found = {name: list(_values(name, configs).values()) for name in configs[0] if name not in _PLACES}
    return {name: values[0] for name, values in found.items() if len(values) == 1 and values[0] != defaults.get(name)}
