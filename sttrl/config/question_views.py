"""Views of text questions: several ways to ask the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from sttrl.config.rules import Group, Rule
from sttrl.errors import UsageError

ViewForm = Literal["options", "paraphrases", "wordings"]
VIEWS: Final = Rule(lambda value: 1 <= value <= 64, "Use 1 to 64.")
MOST_WORDINGS: Final = 16
"""How many wordings there are."""
MEMO_VIEWS: Final = 8
"""Views of --memo_form token where --question_views is unset (derived)."""


@dataclass(frozen=True, kw_only=True)
class QuestionViewSettings(Group):
    """Text questions: the views under which each is asked."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    question_views: Annotated[int | None, VIEWS] = None
    """Ways to ask each question, the plain one included. The samples of votes and evaluations are spread over them in turn, and answers are
    mapped back before the vote. memo in --memo_form token averages over them instead. Unset: 1, in that form 8 (derived)."""
    question_view_form: ViewForm | None = None
    """How the views differ. options: the options of a multiple-choice question in another order, and the letters mapped back. paraphrases:
    the question in other words, written by the base model (Self-Harmony). wordings: a fixed text before or after the question. Unset:
    options, in --memo_form token wordings."""

    def count(self, *, averaged: bool) -> int:
        """The number of views. ``averaged``: memo averages over them."""
        return self.question_views or (MEMO_VIEWS if averaged else 1)

    def form(self, *, averaged: bool) -> ViewForm:
        """How they differ."""
        return self.question_view_form or ("wordings" if averaged else "options")

    def check(self, samples: Mapping[str, int], *, averaged: bool, compared: bool) -> None:
        """Raises `UsageError` for views that would do nothing.

        ``samples``: how many are spread over them in a vote or an evaluation, by the setting that says so. ``compared``: the vote compares
        the views.
        """
        count, form = self.count(averaged=averaged), self.form(averaged=averaged)
        if count == 1 and averaged:
            raise UsageError("--memo_form token averages over views, and --question_views is 1.", "Use --question_views 2.")
        if count == 1 and self.question_view_form is not None:
            raise UsageError(f"--question_view_form {form} does nothing with --question_views 1.", "Use --question_views 2.")
        if count == 1 and compared:
            raise UsageError("--voting_function harmony compares views, and --question_views is 1.", "Use --question_views 2.")
        if form == "wordings" and count > MOST_WORDINGS:
            raise UsageError(f"--question_views is {count}, and there are {MOST_WORDINGS} wordings.", f"Use at most {MOST_WORDINGS}.")
        if form == "options" and averaged:
            raise UsageError(
                "--question_view_form options with --memo_form token: the letters of permuted options name other answers.",
                "Use wordings or paraphrases.",
            )
        for name, most in samples.items():
            if count > most and not averaged:
                raise UsageError(
                    f"--question_views {count} is more than --{name} {most}: some views would not be asked.",
                    f"Use fewer views, or a larger --{name}.",
                )
