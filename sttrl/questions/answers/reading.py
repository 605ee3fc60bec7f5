"""From a response or a label to a normal form; nothing is compared here."""

from __future__ import annotations

from sttrl.questions.answers.dressing import without_bold
from sttrl.questions.answers.extract import extract
from sttrl.questions.answers.limits import Limits, exceeded
from sttrl.questions.answers.normalise import normalise
from sttrl.types import Answer, AnswerKind, FinishReason


def read_answer(text: str, kind: AnswerKind, finish: FinishReason, limits: Limits, option_count: int | None = None) -> Answer:
    """The answer of a response in normal form, or the reason why it has none; ``option_count`` as in `extract`."""
    if finish == "stop" and len(text) > limits.text_chars:
        return Answer(text=None, invalid="too_long")
    raw = extract(text, kind, finish, option_count)
    return raw if raw.text is None else read_label(raw.text, kind, limits)


def read_label(label: str, kind: AnswerKind, limits: Limits) -> Answer:
    """The normal form of a label, or of what `extract` found; or the reason why it has none."""
    if exceeded(without_bold(label), limits):
        return Answer(text=None, invalid="too_long")
    form = normalise(label, kind)
    if form is None:
        return Answer(text=None, invalid="unparsable")
    return Answer(text=None, invalid="too_long") if exceeded(form, limits) else Answer(text=form)
