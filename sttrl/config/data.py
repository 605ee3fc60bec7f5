"""Which questions are asked, and how their rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sttrl.config.rules import OPTIONAL_COUNT, Group
from sttrl.config.template import template_settings
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataSettings(Group):
    """Which questions are asked, and how their rows are read."""

    dataset: str = "arithmetic-demo"
    """A named data set (AIME-TTT, AMC-TTT, MATH-TTT, MATH-L1-TTT to MATH-L5-TTT, GSM8K-TTT, GPQA-TTT, arithmetic-demo), a
    .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, or hf:org/name[@revision][:config][:split]."""
    limit: Annotated[int | None, OPTIONAL_COUNT] = None
    """Ask only the first questions, this many."""
    ids: tuple[str, ...] = ()
    """Ask only the questions with these ids."""
    data_dir: Path | None = None
    """Where named data sets are looked for first; then the environment variable STTRL_DATA, then the hub."""
    question_column: tuple[str, ...] = ()
    """Column of the question, when its name is unusual; several are joined in this order."""
    answer_column: str | None = None
    """Column of the label, when its name is unusual."""
    id_column: str | None = None
    """Column of the question's id, when its name is unusual."""
    answer_kind: Literal["math", "number", "choice"] | None = None
    """How answers are read, for data sets without a name: a mathematical object, a number, or a choice letter."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a row that cannot be used does: stop and name the row, or skip and count it."""
    max_prompt_tokens: Annotated[int | None, OPTIONAL_COUNT] = None
    """Longest prompt; a longer one is an error, never cut. Unset: the data set's limit (TTRL: 512 AIME, 1024 others)."""
    prompt_format: str | None = None
    """A template holding {question}, for models without a chat template."""
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
