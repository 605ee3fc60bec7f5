"""The tables in plain text, at most `WIDTH` columns: the one a run ends on, and runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

from sttrl.report.metrics import METRICS

WIDTH: Final = 100
ROWS: Final = (("base", "base"), ("vote (same tokens)", "vote_same_tokens"), ("adapted", "adapted"), ("gain", "gain"))
COMPARABLE: Final = (
    "dataset", "question_column", "answer_column", "limit", "ids", "val_samples", "val_temp", "val_top_p",
    "max_prompt_tokens", "max_response_tokens", "prompt_format",
)  # fmt: skip
"""Settings that must be the same for two runs to be compared question by question."""

NamedRun = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""A run's name, its summary and its configuration."""

_NOTHING: Final = "-"


def before_after_table(summary: Mapping[str, Any]) -> str:
    """The table of one run, with a line on what the gain's interval says, and the counts below."""
    counts = [line for name, text in facts(summary).items() for line in _named(name, text)]
    lines = [*_metric_table(summary), *_remarks(summary), "", *counts]
    return "\n".join(line[:WIDTH].rstrip() for line in lines)


def compare_table(runs: Sequence[NamedRun]) -> str:
    """Runs beside each other: a block a metric, a row a run; a warning where they cannot be compared."""
    letters = [_letter(number) for number in range(len(runs))]
    lines = [f"{letter}  {name}" for letter, (name, _, _) in zip(letters, runs, strict=True)]
    lines += [f"Warning: not comparable: {reason}." for reason in differences(runs)]
    summaries = [summary for _, summary, _ in runs]
    for metric in METRICS:
        header = (metric, *(label for label, _ in ROWS))
        rows = [(letter, *(metric_cell(s, key, metric) for _, key in ROWS)) for letter, s in zip(letters, summaries, strict=True)]
        lines += ["", *_aligned([header, *rows])]
    for name in facts(summaries[0]) if summaries else ():
        lines += ["", name]
        lines += [line for letter, summary in zip(letters, summaries, strict=True) for line in _named(letter, facts(summary)[name])]
    return "\n".join(line[:WIDTH].rstrip() for line in lines)


def differences(runs: Sequence[NamedRun]) -> tuple[str, ...]:
    """Why runs cannot be compared: the settings and questions that differ."""
    settings = {name: [config.get(name) for _, _, config in runs] for name in COMPARABLE}
    found = [f"--{name} is {_listed(values)}" for name, values in settings.items() if _differ(values)]
    if _differ([summary["questions"]["ids_sha256"] for _, summary, _ in runs]):
        found.append(f"the finished questions are not the same ({_listed([s['questions']['total'] for _, s, _ in runs])} of them)")
    return tuple(found)


def metric_cell(summary: Mapping[str, Any], key: str, metric: str) -> str:
    """A metric of one row with its interval: ``.412 [.30, .53]``, signed in the row ``gain``."""
    block = summary[key]
    if block is None or block[metric] is None:
        return _NOTHING
    signed = key == "gain"
    low, high = block["ci95_by_metric"][metric]
    return f"{_share(block[metric], 3, signed)} [{_share(low, 2, signed)}, {_share(high, 2, signed)}]"


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Everything but the table, by name: questions, stops, votes, tokens, seconds."""
    stops = ", ".join(f"{reason} {count}" for reason, count in summary["questions"]["stops"].items())
    seconds = ", ".join(f"{name} {value:,.1f}" for name, value in summary["seconds"].items())
    return {
        "questions": _question_counts(summary["questions"]),
        "stops": stops or _NOTHING,
        "votes": _vote_shares(summary),
        "tokens": ", ".join(f"{name} {count:,}" for name, count in summary["tokens"].items()),
        "seconds": seconds or _NOTHING,
    }


def gain_remark(summary: Mapping[str, Any]) -> str | None:
    """What the interval of the gain in mean@k says, None without a gain."""
    gain = summary["gain"]
    if gain is None:
        return None
    low, high = gain["ci95"]
    if low <= 0 <= high:
        return "The 95 % interval of the gain in mean@k includes 0: this run does not show that adapting changed the accuracy."
    return f"The 95 % interval of the gain in mean@k excludes 0: adapting {'raised' if low > 0 else 'lowered'} the accuracy."


def _metric_table(summary: Mapping[str, Any]) -> list[str]:
    if all(summary[key] is None for _, key in ROWS):
        return ["No question could be scored: there are no labels for them, or none of them was finished."]
    k = (summary["base"] or {}).get("k", "k")
    header = ("", *(metric.replace("@k", f"@{k}") for metric in METRICS))
    shown = [(label, key) for label, key in ROWS if summary[key] is not None]
    return _aligned([header, *((label, *(metric_cell(summary, key, metric) for metric in METRICS)) for label, key in shown)])


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    vote, remark = summary["vote_same_tokens"], gain_remark(summary)
    lines = [] if vote is None else [f"vote (same tokens): the base votes with {vote['k']} samples a question, the tokens adapting took."]
    return ["", *lines, *([] if remark is None else _broken(remark))] if lines or remark else []


def _question_counts(counts: Mapping[str, Any]) -> str:
    parts = [f"{counts['total']} finished", f"{counts['graded']} graded"]
    if counts["won"] is not None:
        parts.append(f"{counts['won']} won / {counts['lost']} lost / {counts['unchanged']} unchanged")
    parts += [f"{counts[name]} {name}" for name in ("failed", "diverged", "oom") if counts[name]]
    parts += [f"{counts['unlabelled']} without a label"] if counts["unlabelled"] else []
    parts += [f"{counts['unpolled']} without a base evaluation"] if counts["unpolled"] else []
    return ", ".join(parts)


def _vote_shares(summary: Mapping[str, Any]) -> str:
    names = {"agreement": "majority_ratio", "label accuracy": "label_accuracy", "reward accuracy": "reward_accuracy",
             "right samples": "ground_truth_ratio"}  # fmt: skip
    shares = [f"{label} {_share(summary[key], 3)}" for label, key in names.items() if summary[key] is not None]
    return ", ".join(shares) or "none held"


def _share(value: float, digits: int, signed: bool = False) -> str:
    """``.250``; the number 1 loses a digit, so that every share of a column has the same width."""
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0") else text[:-1]
    is_zero = not text.strip(".0")
    return (("+" if value > 0 else "-") if signed and not is_zero else "-" if value < 0 and not is_zero else "") + text


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _named(name: str, text: str) -> list[str]:
    """``name`` in a column of its own, the text beside it, broken where it is too long."""
    return [f"{name if number == 0 else '':<9} {line}" for number, line in enumerate(_broken(text, WIDTH - 10))]


def _broken(text: str, width: int = WIDTH) -> list[str]:
    lines: list[str] = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _letter(number: int) -> str:
    return ascii_uppercase[number] if number < len(ascii_uppercase) else str(number + 1)


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values[1:])


def _listed(values: Sequence[object]) -> str:
    return " and ".join(dict.fromkeys(str(value) for value in values))
