"""How the rows of text questions are read, and how their prompts are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sttrl.config.rules import Group
from sttrl.config.template import template_settings
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class QuestionSettings(Group):
    """Text questions: how their rows are read, and how their prompts are made."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    question_column: tuple[str, ...] = ()
    """Column of the question, when its name is unusual; several are joined in this order."""
    answer_column: str | None = None
    """Column of the label, when its name is unusual."""
    id_column: str | None = None
    """Column of the question's id, when its name is unusual."""
    answer_kind: Literal["math", "number", "choice"] | None = None
    """How answers are read, for data sets without a name: a mathematical object, a number, or a choice letter."""
    prompt_format: str | None = None
    """A template holding {question}, for models without a chat template."""
    instruction: str | None = None
    """The sentence that follows every question; '' adds none. Unset: the data set's own, TTRL's for a file."""
    system_prompt: str | None = None
    """System message of every prompt; it replaces the row's own, and '' removes the row's own."""
    chat_template_kwargs: str | None = None
    """Settings of the model's chat template, as a JSON object: '{"enable_thinking": false}'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kwargs, form = template_settings(self.chat_template_kwargs), self.prompt_format
        if form is None:
            return
        if "{question}" not in form:
            raise UsageError(f"--prompt_format {form!r} has no {{question}}.", "Write {question} where the question goes.")
        for name, given in (("system_prompt", self.system_prompt), ("chat_template_kwargs", kwargs)):
            if given:
                text = getattr(self, name)
                raise UsageError(f"--{name} {text!r} with --prompt_format: it needs the chat template.", "Leave one of them out.")
