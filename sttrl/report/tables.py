"""The table that a run prints at its end, and the counts below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from sttrl.report.layout import NOTHING, aligned, broken, decimal, named, number_or_nothing, page, with_interval
from sttrl.report.over_time import SHOWN

ROWS: Final[tuple[tuple[str, str], ...]] = (
    ("base", "base"),
    ("vote (same tokens)", "vote_same_tokens"),
    ("conf. (same tokens)", "confidence_same_tokens"),
    ("early (same tokens)", "early_same_tokens"),
    ("adapted", "adapted"),
    ("gain", "gain"),
)
"""The label of each row, and its key in summary.json."""
VOTE_COLUMNS: Final = (("majority ratio", "majority_ratio"), ("label accuracy", "label_accuracy"), ("reward accuracy", "reward_accuracy"))
"""The label of each column of the table over time that is about votes, and its key in summary.json."""
TIME_ROWS: Final = 10
_Row = TypeVar("_Row")

_VOTE_METRICS: Final = {
    "majority ratio": "majority_ratio",
    "label accuracy": "label_accuracy",
    "by majority": "majority_label_accuracy",
    "reward accuracy": "reward_accuracy",
    "right samples": "ground_truth_ratio",
    "flips": "flip_rate",
}


def before_after_table(summary: Mapping[str, Any]) -> str:
    """The table of one run, with a sentence about the gain, the table over time, and the counts."""
    counts = [line for name, text in facts(summary).items() for line in named(name, text)]
    return page([*_metric_table(summary), *_remarks(summary), *_time_table(summary), "", *counts])


def metric_cell(summary: Mapping[str, Any], key: str, metric: str) -> str:
    """A metric of one row with its interval: ``.412 [.30, .53]``, signed in the row ``gain``."""
    block = summary[key]
    if block is None or block[metric] is None:
        return NOTHING
    if (ends := block["ci95_by_metric"][metric]) is None:
        return decimal(block[metric], 3)
    low, high = ends
    return with_interval(block[metric], low, high, signed=key == "gain")


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """The lines below the table, by name: questions, stops, votes, tokens, seconds."""
    stops = ", ".join(f"{reason} {count}" for reason, count in summary["questions"]["stops"].items())
    seconds = ", ".join(f"{name} {value:,.1f}" for name, value in summary["seconds"].items())
    return {
        "questions": _question_counts(summary["questions"]),
        "stops": stops or NOTHING,
        "votes": _vote_line(summary),
        "1st votes": _by_first_vote(summary),
        "tokens": ", ".join(f"{name} {count:,}" for name, count in summary["tokens"].items()),
        **({} if summary["saved"] is None else {"saved": _saved_line(summary["saved"])}),
        **({} if summary["views"] is None else {"views": _views_line(summary["views"])}),
        **({"searched": ", ".join(f"{name} {count:,}" for name, count in summary["counts"].items())} if summary["counts"] else {}),
        "seconds": seconds or NOTHING,
    }


def gain_remark(summary: Mapping[str, Any]) -> str | None:
    """A sentence that says whether the interval of the gain in the headline metric includes 0; None without a gain."""
    gain = summary["gain"]
    if gain is None:
        return None
    (low, high), headline = gain["ci95"], summary["metrics"]["headline"]
    if low <= 0 <= high:
        return f"The 95 % interval of the gain in {headline} includes 0: this run does not show that adapting changed it."
    return f"The 95 % interval of the gain in {headline} excludes 0: adapting {'raised' if low > 0 else 'lowered'} it."


def vote_remark(summary: Mapping[str, Any]) -> str | None:
    """A sentence that explains the votes with the same tokens, or says that they are missing."""
    vote = summary["vote_same_tokens"]
    if vote is None and summary["metrics"] and not summary["metrics"]["has_baseline"]:
        return None
    if vote is None:
        return summary["gain"] and "The base did not vote with the tokens that adapting took: more votes alone may gain as much."
    early = summary["early_same_tokens"]
    rounds = f", early: the majority of the first of them, {early['k']} a question, once it is decided" if early else ""
    return (
        f"same tokens: the base votes with {vote['k']} samples a question, the tokens adapting took; vote: the majority, "
        f"conf.: each sample weighed by exp of its mean log-prob{rounds}."
    )


def time_columns(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The label of each column of the table over time, and its key in summary.json."""
    names = summary["metrics"] or {"unbounded": [], "paired": []}
    metrics = [*names["unbounded"], *names["paired"][:SHOWN]]
    voted = any(row["votes"] for row in summary["over_time"] or ())
    return [*((metric, metric) for metric in metrics), *(VOTE_COLUMNS if voted else ())]


def thinned(rows: Sequence[_Row], most: int = TIME_ROWS) -> list[_Row]:
    """At most ``most`` rows, evenly spaced, including the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def evaluated(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of ``over_time`` after whose step questions were evaluated."""
    return [row for row in summary["over_time"] or () if row["questions"]]


def _metric_table(summary: Mapping[str, Any]) -> list[str]:
    if all(summary[key] is None for _, key in ROWS):
        return ["No question could be scored: there are no labels for them, or none of them was finished."]
    k, metrics = (summary["base"] or {}).get("k", "k"), summary["metrics"]["all"]
    header = ("", *(metric.replace("@k", f"@{k}") for metric in metrics))
    shown = [(label, key) for label, key in ROWS if summary[key] is not None]
    return aligned([header, *((label, *(metric_cell(summary, key, metric) for metric in metrics)) for label, key in shown)])


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    lines = [line for text in (vote_remark(summary), gain_remark(summary)) if text is not None for line in broken(text)]
    return ["", *lines] if lines else []


def _time_table(summary: Mapping[str, Any]) -> list[str]:
    rows = thinned(evaluated(summary))
    if not rows:
        return []
    k = (summary["base"] or {}).get("k", "k")
    columns = time_columns(summary)
    header = ("steps", *(label.replace("@k", f"@{k}") for label, _ in columns))
    cells = [(str(row["step"]), *(number_or_nothing(row.get(key)) for _, key in columns)) for row in rows]
    return ["", "over time", *aligned([header, *cells])]


def _question_counts(counts: Mapping[str, Any]) -> str:
    parts = [f"{counts['total']} finished", f"{counts['graded']} graded"]
    if counts["won"] is not None:
        parts.append(f"{counts['won']} won / {counts['lost']} lost / {counts['unchanged']} unchanged")
    parts += [f"{counts[name]} {name}" for name in ("failed", "diverged", "oom") if counts[name]]
    parts += [f"{counts['unlabelled']} without a label"] if counts["unlabelled"] else []
    parts += [f"{counts['unpolled']} without a base evaluation"] if counts["unpolled"] else []
    return ", ".join(parts)


def _saved_line(saved: Mapping[str, Any]) -> str:
    line = f"{saved['samples']:,} samples not drawn, about {saved['tokens']:,} tokens by the mean length of their vote's samples"
    if saved["early_vote_tokens"] is None:
        return line
    return f"{line}; the vote with the same tokens needs {saved['early_vote_tokens']:,} of its {saved['vote_tokens']:,} if it ends early"


def _views_line(views: Mapping[str, int]) -> str:
    fewer = f", but fewer of {views['fewer']}" if views["fewer"] else ""
    return f"{views['wanted']} of each question, the plain one included{fewer}"


def _by_first_vote(summary: Mapping[str, Any]) -> str:
    """The accuracy before and after adapting, of the questions whose first vote was right and of those where it was not."""
    if summary["by_first_vote"] is None:
        return NOTHING
    k, parts = (summary["base"] or {}).get("k", "k"), list[str]()
    for name, text in (("right", "right in {}"), ("wrong", "wrong or none in {}")):
        block = summary["by_first_vote"][name]
        change = f" (mean@{k} {decimal(block['base'], 3)} to {decimal(block['adapted'], 3)})" if block["questions"] else ""
        parts.append(text.format(block["questions"]) + change)
    return ", ".join(parts)


def _vote_line(summary: Mapping[str, Any]) -> str:
    votes = summary["votes"]
    if not votes["held"]:
        return "none held"
    gated = ", ".join(f"{count} by {gate}" for gate, count in votes["gated"].items() if count)
    numbers = [f"{label} {decimal(summary[key], 3)}" for label, key in _VOTE_METRICS.items() if summary[key] is not None]
    alike = [f"{votes['equal_rewards']} with equal rewards"] if votes["equal_rewards"] else []
    return ", ".join([f"{votes['held']} held", *alike, *([f"gated {gated}"] if gated else []), *numbers])
