"""Views of a text question: invertible rewrites. A question is asked under a view, and the answer is mapped back before the vote.

The samples of a vote or an evaluation are spread over the views in turn: sample i answers view i modulo their number. The first view is the
question as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase

from sttrl.config.question_views import ViewForm
from sttrl.questions.options import option_spans, orders, reordered
from sttrl.types import Answer, Ballots, Sampling

WORDINGS = (
    "{question}",
    "{question}\nGive the answer only.",
    "{question}\nThink, then answer.",
    "{question}\nWhat is the right answer?",
    "{question}\nSolve this.",
    "{question}\nAnswer briefly.",
    "{question}\nBe careful.",
    "{question}\nPlease answer the question above.",
    "Question: {question}",
    "Solve the following problem. {question}",
    "Please answer: {question}",
    "Here is a question. {question}",
    "I need help with this: {question}",
    "Exam question: {question}",
    "Read carefully. {question}",
    "Find the answer. {question}",
)
"""Wordings of a prompt (derived). They contain the question unchanged, so that all ask the same."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A way to ask a question.

    ``key``: its name in records, "" for the question as it is; ``optionsBCDA`` has option B at place A. ``text``: the question as the view
    asks it. ``order``: the number of the option at each place, from 0; None: the options stay where they are.
    """

    key: str
    text: str = field(repr=False)
    order: tuple[int, ...] | None = None

    def invert(self, answer: Answer) -> Answer:
        """An answer to the view as an answer to the question. A letter behind the last option is no answer."""
        if self.order is None or answer.text is None:
            return answer
        place = ascii_uppercase.find(answer.text)
        if not 0 <= place < len(self.order):
            return Answer(text=None, invalid="unparsable")
        return Answer(text=ascii_uppercase[self.order[place]])


@dataclass(frozen=True, kw_only=True)
class ViewChoice:
    """Which views are made of each question. ``seed``: the run's. ``sampling``: of the votes; the base writes paraphrases with its
    temperature. ``averaged``: they are not asked, but memo averages over them. ``context``: the model's, in tokens; None: not known.
    """

    form: ViewForm
    count: int
    seed: int
    sampling: Sampling
    averaged: bool = False
    context: int | None = None


def permuted_views(text: str, question_id: str, option_count: int | None, chosen: ViewChoice) -> tuple[View, ...]:
    """The views of a question with permuted options, the plain one first; fewer than chosen if the question has no more.

    Raises:
        ValueError: no options can be found in the text.
    """
    spans = option_spans(text, option_count)
    if spans is None:
        raise ValueError("its options cannot be found in its text, so they cannot be permuted")
    options = [text[start:end] for start, end in spans]
    found = orders(options, chosen.count, chosen.seed, question_id)
    return tuple(
        View(key=f"options{''.join(ascii_uppercase[o] for o in order)}" if number else "", text=reordered(text, spans, order), order=order)
        for number, order in enumerate(found)
    )


def worded_views(text: str, count: int) -> tuple[View, ...]:
    """The question in each of the first ``count`` wordings; the first is the question alone."""
    return tuple(View(key=f"wording{n}" if n else "", text=words.replace("{question}", text)) for n, words in enumerate(WORDINGS[:count]))


def mapped_back(ballots: Ballots, view_V: Sequence[View], view_G: Sequence[int]) -> Ballots:
    """The ballots with each answer mapped back from the view that its sample answers.

    Letters are compared again after mapping. If no view moves options, answers and classes stay as the judge found them.
    """
    if all(view.order is None for view in view_V):
        return replace(ballots, view_G=tuple(view_G))
    answer_G = tuple(view_V[view].invert(answer) for answer, view in zip(ballots.answer_G, view_G, strict=True))
    letters = tuple(dict.fromkeys(answer.text for answer in answer_G if answer.text is not None))
    class_G = tuple(None if answer.text is None else letters.index(answer.text) for answer in answer_G)
    return replace(ballots, answer_G=answer_G, class_G=class_G, representative_C=letters, view_G=tuple(view_G))
