"""A card for each question on the page of a run: what was asked, the label, what each side answered, and a few samples, folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sttrl.ledger.records import FinishedQuestion, PollName, PollRecord, elected
from sttrl.report.labels import Grades, Verdicts
from sttrl.report.safe import shown, shown_text
from sttrl.report.texts import QuestionTexts, Sample, Texts, verdict_of

SIDES: Final[tuple[tuple[PollName, str], ...]] = (("base", "base"), ("vote_same_tokens", "vote (same tokens)"), ("adapted", "adapted"))
"""The polls that answer, and what they are called."""
_CLASSES: Final = {"right": "won", "wrong": "lost", "no answer": "lost"}

CARD_STYLE: Final = """
article{border:1px solid var(--line);border-radius:.4rem;padding:.6rem .9rem;margin:.8rem 0}
h3{font-size:1rem;margin:0 0 .4rem;overflow-wrap:anywhere}h3 small{font-weight:400;color:var(--soft)}
pre{font:inherit;font-size:.9rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}
details pre{border-left:3px solid var(--line);padding-left:.7rem}summary{cursor:pointer;color:var(--mark);margin-top:.5rem}
h4{font-size:.9rem;font-weight:600;margin:.8rem 0 0}
"""


def question_cards(finished: Sequence[FinishedQuestion], grades: Grades, texts: Texts) -> str:
    """The cards, below what is to be said of all of them."""
    remark = "" if texts.remark is None else f'<p class="soft">{shown_text(texts.remark)}</p>\n'
    return remark + "\n".join(_card(question, grades.of(question.record.id), texts.of(question.record.id)) for question in finished)


def _card(question: FinishedQuestion, verdicts: Verdicts | None, texts: QuestionTexts) -> str:
    record = question.record
    end = ", ".join(shown(each) for each in (record.status, record.stop) if each is not None)
    asked = "" if texts.question is None else f"<pre>{shown_text(texts.question)}</pre>\n"
    label = "" if texts.label is None else f"<dt>label</dt><dd>{shown(texts.label)}</dd>\n"
    answers = "".join(f"<dt>{name}</dt><dd>{_answer(record.polls[side], verdicts)}</dd>\n" for side, name in SIDES if side in record.polls)
    samples = "".join(_samples(name, texts.samples.get(side, ()), record.polls[side].k) for side, name in SIDES if side in texts.samples)
    folded = f"<details><summary>Samples</summary>\n{samples}</details>\n" if samples else ""
    return f"<article>\n<h3>{shown(record.id)} <small>{end}</small></h3>\n{asked}<dl>{label}{answers}</dl>\n{folded}</article>"


def _answer(poll: PollRecord, verdicts: Verdicts | None) -> str:
    """What a side elected, whether it is right, and how many of its samples say so."""
    answer, votes = elected(poll), round(poll.election.majority_ratio * poll.election.samples)
    if answer is None:
        return f'<i>none</i> <small class="soft">of {poll.k} samples</small>'
    how = f"{votes} of {poll.k} samples" if poll.election.answer is not None else "the greedy response; the vote elected nobody"
    return f'{shown(answer)} {_verdict(verdict_of(answer, verdicts))}<small class="soft">{how}</small>'


def _samples(name: str, samples: Sequence[Sample], k: int) -> str:
    return "".join(_sample(f"{name}, sample {number} of {k}", sample) for number, sample in enumerate(samples, 1))


def _sample(title: str, sample: Sample) -> str:
    answer = "" if sample.answer is None else f"{shown(sample.answer)} "
    return f"<h4>{title}: {answer}{_verdict(sample.verdict)}</h4>\n<pre>{shown_text(sample.text)}</pre>\n"


def _verdict(verdict: str) -> str:
    """In colour; nothing where there is no label to say so."""
    return "" if verdict == "no label" else f'<span class="{_CLASSES.get(verdict, "soft")}">{verdict}</span> '
