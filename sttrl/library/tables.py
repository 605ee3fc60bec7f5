"""Problems and samples of a loaded run as rows of a table. A data frame and the exports have the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from sttrl.library.records import Evaluation, Problem, Sample
from sttrl.report.metrics import ROW_NAMES

ColumnKind = Literal["text", "whole", "number", "flag", "wholes", "numbers"]
"""``wholes`` and ``numbers`` are lists."""
Columns = dict[str, ColumnKind]
Row = dict[str, Any]

SAMPLE_COLUMNS: Final[Columns] = {
    "id": "text",
    "evaluation": "text",
    "step": "whole",
    "number": "whole",
    "greedy": "flag",
    "test": "whole",
    "view": "text",
    "answer": "text",
    "invalid": "text",
    "right": "flag",
    "reward": "number",
    "finish": "text",
    "seed": "whole",
    "version": "whole",
    "tokens": "whole",
    "logprob_mean_nats": "number",
    "text": "text",
    "token_ids": "wholes",
    "token_logprobs_nats": "numbers",
}
"""A row is a response. ``tokens``: how many it has."""
EVALUATIONS: Final = ("base", "vote_same_tokens", "adapted")
_FIRST: Final[Columns] = {
    "id": "text",
    "index": "whole",
    "status": "text",
    "stop": "text",
    "error": "text",
    "question": "text",
    "label": "text",
    "answer": "text",
    "answer_source": "text",
    "right": "flag",
    "weight": "number",
}
_LAST: Final[Columns] = {
    "steps": "whole",
    "first_vote/answer": "text",
    "first_vote/majority_ratio": "number",
    "last_vote/answer": "text",
    "last_vote/majority_ratio": "number",
    "tokens/sampled": "whole",
    "tokens/trained": "whole",
    "tokens/evaluated": "whole",
    "time/total_s": "number",
}
_OF_EVALUATION: Final[Columns] = {
    "answer": "text",
    "right": "flag",
    "k": "whole",
    "tokens": "whole",
    "majority_ratio": "number",
    "margin": "number",
}


def problem_columns(problems: Sequence[Problem]) -> Columns:
    """The columns of a table with a row for each problem. Those of the metrics are ``<row>/<metric>``, such as ``adapted/mean@k``."""
    columns = dict(_FIRST)
    for name in EVALUATIONS:
        if any(getattr(problem, name) is not None for problem in problems):
            columns |= {f"{name}/{field}": kind for field, kind in _OF_EVALUATION.items()}
    for name in ROW_NAMES:
        metrics = dict.fromkeys(metric for problem in problems for metric in problem.scores.get(name, ()))
        columns |= {f"{name}/{metric}": "number" for metric in metrics}
    return columns | _LAST


def problem_row(problem: Problem) -> Row:
    """The row of a problem, with a value for each of `problem_columns` that it has."""
    row: Row = {name: getattr(problem, name) for name in _FIRST}
    for name in EVALUATIONS:
        if (evaluation := getattr(problem, name)) is not None:
            row |= {f"{name}/{field}": value for field, value in _evaluation_row(evaluation).items()}
    row |= {f"{name}/{metric}": value for name, metrics in problem.scores.items() for metric, value in metrics.items()}
    row["steps"] = len(problem.steps)
    for name, votes in (("first_vote", problem.votes[:1]), ("last_vote", problem.votes[-1:])):
        row |= {f"{name}/{field}": getattr(vote, field) for vote in votes for field in ("answer", "majority_ratio")}
    row |= {f"tokens/{name}": getattr(problem, f"tokens_{name}") for name in ("sampled", "trained", "evaluated")}
    row["time/total_s"] = round(sum(problem.seconds.values()), 4)
    return row


def sample_rows(problem: Problem) -> Iterator[Row]:
    """A row for each sample of a problem."""
    for sample in problem.rollouts.read():
        yield {"id": problem.id, **_sample_row(sample)}


def _evaluation_row(evaluation: Evaluation) -> Row:
    vote = evaluation.vote
    own = {name: getattr(evaluation, name) for name in ("answer", "right", "k", "tokens")}
    return own | {name: None if vote is None else getattr(vote, name) for name in ("majority_ratio", "margin")}


def _sample_row(sample: Sample) -> Row:
    count = len(sample.tokens)
    return {
        **{name: getattr(sample, name) for name in SAMPLE_COLUMNS if name in vars(sample)},
        "tokens": count,
        "logprob_mean_nats": sum(sample.logprobs) / count if count else None,
        "token_ids": list(sample.tokens),
        "token_logprobs_nats": list(sample.logprobs),
    }
