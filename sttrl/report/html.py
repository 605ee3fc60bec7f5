"""report.html: one file that needs nothing else, offline, on a phone, in a light or a dark room.

Everything that a model, a data set or a user wrote goes through `sttrl.report.safe`, and the page forbids itself any script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from sttrl.ledger.records import FinishedQuestion
from sttrl.report.cards import CARD_STYLE, question_cards
from sttrl.report.figures import curve, interval_bars, sparkline
from sttrl.report.labels import Grades, Verdicts
from sttrl.report.layout import share_or_nothing
from sttrl.report.metrics import METRICS, QuestionScore, score_questions
from sttrl.report.safe import shown
from sttrl.report.tables import ROWS, TIME_COLUMNS, evaluated, facts, gain_remark, metric_cell, vote_remark
from sttrl.report.texts import NO_TEXTS, Texts

_STYLE: Final = """
:root{color-scheme:light dark;
--ink:#1c1e21;--paper:#fff;--soft:#666e78;--line:#d9dde2;--bar:#9dbbe0;--mark:#1f5fae;--good:#1a7f37;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{
--ink:#e6e8ea;--paper:#16181b;--soft:#9aa3ad;--line:#343a41;--bar:#33557f;--mark:#8ab8f0;--good:#57c26f;--bad:#f0857b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:68rem;margin:0 auto;padding:1rem}
h1{font-size:1.35rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}td small,.soft{color:var(--soft)}td.text{overflow-wrap:anywhere;min-width:6rem;max-width:20rem}
td.number{white-space:nowrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.won{color:var(--good)}.lost{color:var(--bad)}
svg{display:block}svg.bars{width:100%;max-width:32rem}svg text{fill:var(--ink);font-size:13px}svg rect{fill:var(--bar)}
svg.curve{width:19rem}svg line{stroke:var(--line)}
svg path,svg polyline{fill:none;stroke:var(--mark);stroke-width:1.5}svg circle{fill:var(--mark)}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def report_page(
    name: str,
    finished: Sequence[FinishedQuestion],
    grades: Grades,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    texts: Texts = NO_TEXTS,
) -> str:
    """The page of a run. ``name``: the run's; ``config``: its settings as plain values; ``texts``: what its questions say."""
    scores = score_questions(finished, grades)
    rows = [_question_row(question, score, grades.of(score.id)) for question, score in zip(finished, scores, strict=True)]
    sections = [
        f"<h1>{shown(name)}</h1>",
        f'<p class="soft">{shown(config.get("model"))} on {shown(config.get("dataset"))}, {shown(config.get("adaptation_method"))}</p>',
        _section("Before and after", _before_and_after(summary)),
        *_over_time(summary),
        _section("Questions", _table(("id", "status", "stop", "mean@k", "elected", "right", "agreement by step"), rows)),
        _section("What was asked and answered", question_cards(finished, grades, texts)),
        _section("Configuration", _pairs(config)),
    ]
    return _page(name, "\n".join(sections))


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown(title)}</title>\n<style>{_STYLE}{CARD_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _paragraph(text: str | None) -> str:
    return "" if text is None else f"<p>{escape(text)}</p>"


def _pairs(values: Mapping[str, object]) -> str:
    return "<dl>" + "".join(f"<dt>{shown(name)}</dt><dd>{shown(value)}</dd>\n" for name, value in values.items()) + "</dl>"


def _table(header: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody></table></div>"


def _before_and_after(summary: Mapping[str, Any]) -> str:
    remarks = _paragraph(vote_remark(summary)) + _paragraph(gain_remark(summary))
    return _metric_table(summary) + _bars(summary) + remarks + _pairs(facts(summary))


def _over_time(summary: Mapping[str, Any]) -> list[str]:
    """A section with a curve for every number that is known after some step; none where nothing was evaluated in between."""
    steps = evaluated(summary)
    points = {label: [(row["step"], row[key]) for row in steps if row[key] is not None] for label, key in TIME_COLUMNS}
    rows = [_curve_row(label, known) for label, known in points.items() if known]
    return [_section("Over time", _table(("", "by step", "first", "last"), rows))] if rows else []


def _curve_row(label: str, point_S: Sequence[tuple[int, float]]) -> str:
    ends = "".join(
        f'<td class="number">{share_or_nothing(share)}<br><small>after {step}</small></td>' for step, share in (point_S[0], point_S[-1])
    )
    return f"<tr><td>{escape(label)}</td><td>{curve(label, point_S)}</td>{ends}</tr>"


def _metric_table(summary: Mapping[str, Any]) -> str:
    cells = [(label, *(metric_cell(summary, key, metric) for metric in METRICS)) for label, key in ROWS if summary[key] is not None]
    if not cells:
        return "<p>No question could be scored.</p>"
    rows = ["<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' for cell in row) + "</tr>" for row in cells]
    k = summary["base"]["k"] if summary["base"] is not None else "k"
    return _table(("", *(metric.replace("@k", f"@{k}") for metric in METRICS)), rows)


def _bars(summary: Mapping[str, Any]) -> str:
    blocks = [(label, summary[key]) for label, key in ROWS if key != "gain" and summary[key] is not None]
    return interval_bars([(label, block["mean@k"], *block["ci95"]) for label, block in blocks])


def _question_row(question: FinishedQuestion, score: QuestionScore, verdicts: Verdicts | None) -> str:
    record = question.record
    error = "" if record.error is None else f"<br><small>{shown(record.error)}</small>"
    answer = "<i>none</i>" if record.answer is None else shown(record.answer)
    agreement = sparkline([step.election.majority_ratio for step in question.steps if step.election is not None])
    return (
        f'<tr><td class="text">{shown(record.id)}</td><td>{shown(record.status)}{error}</td><td>{shown(record.stop or "-")}</td>'
        f'<td class="number">{_change(score)}</td><td class="text">{answer}</td><td>{_verdict(record.answer, verdicts)}</td>'
        f"<td>{agreement}</td></tr>"
    )


def _change(score: QuestionScore) -> str:
    if score.base is None:
        return "-"
    if score.adapted is None or score.change is None:
        return f"{score.base.mean:.2f}"
    name = {1: "won", -1: "lost", 0: "soft"}[score.change]
    return f'<span class="{name}">{score.base.mean:.2f} → {score.adapted.mean:.2f}</span>'


def _verdict(answer: str | None, verdicts: Verdicts | None) -> str:
    if verdicts is None:
        return "-"
    return '<span class="won">yes</span>' if answer is not None and verdicts.get(answer) is True else '<span class="lost">no</span>'
