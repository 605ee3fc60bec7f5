"""Views of text questions: several ways to ask the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import Group, Rule

ViewForm = Literal["options", "paraphrases"]
VIEWS = Rule(lambda value: 1 <= value <= 64, "Use 1 to 64.")


@dataclass(frozen=True, kw_only=True)
class QuestionViewSettings(Group):
    """Text questions: the views under which each is asked."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    question_views: Annotated[int, VIEWS] = 1
    """Ways to ask each question, the plain one included. The samples of votes and evaluations are spread over them in turn, and answers are
    mapped back before the vote. 1: only as it is."""
    question_view_form: ViewForm = "options"
    """How the views differ. options: the options of a multiple-choice question in another order, and the letters mapped back. paraphrases:
    the question in other words, written by the base model (Self-Harmony)."""
