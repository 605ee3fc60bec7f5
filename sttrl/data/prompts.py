"""From a question to the token ids of its prompt, made once for sampler and learner alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sttrl.data.files import first_line
from sttrl.data.table import OnBadRow, SkippedRow
from sttrl.errors import DataError, DataRowError, UsageError
from sttrl.types import Problem, Question

PLACEHOLDER = "{question}"
"""What a prompt format holds in the place of the question."""

VIEWS = (
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
"""Wordings of a prompt (derived). They never touch the question itself: what it asks must stay what it asks."""
ANSWER_BEGINS = "The answer is \\boxed{"
"""What a view ends with, so that the next token begins the answer (derived)."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that prompts need."""

    @property
    def chat_template(self) -> Any:
        """The model's chat template, or nothing."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as text, or as {"input_ids": ...}."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens a plain text begins with."""


@dataclass(frozen=True, kw_only=True)
class BuiltProblems:
    """The problems of a run, and the questions whose prompt was too long."""

    problems: tuple[Problem, ...]
    skipped: tuple[SkippedRow, ...]


def build_problem(
    question: Question,
    tokenizer: Tokenizer,
    *,
    instruction: str | None,
    prompt_format: str | None,
    max_prompt_tokens: int,
    system: str | None = None,
    file: str = "data set",
    views: int = 0,
) -> Problem:
    """Put a question into the model's chat template, or into ``prompt_format`` where given, and tokenise it.

    ``instruction`` follows the question unless the prompt has it already, as with models whose template says it.
    ``views``: how many other wordings to make as well.
    Raises UsageError where no prompt can be made, DataRowError where it has more than ``max_prompt_tokens``.
    """
    _check_format(tokenizer, prompt_format, system)
    text = _with_instruction(question.text, tokenizer, instruction, prompt_format, system)
    prompt_T = _token_ids(text, tokenizer, prompt_format, system)
    if len(prompt_T) > max_prompt_tokens:
        problem = f"question {question.id!r} makes a prompt of {len(prompt_T)} tokens, more than --max_prompt_tokens {max_prompt_tokens}"
        raise DataRowError(file, question.row, "prompt", problem, "Raise it, or give --on_bad_row skip; a prompt is never cut.")
    if not prompt_T:
        raise UsageError(f"The prompt of question {question.id!r} has no tokens.", "Correct --prompt_format.")
    view_V = _views(question.text, tokenizer, prompt_format, system, views)
    return Problem(
        id=question.id,
        index=question.index,
        kind=question.kind,
        prompt_T=prompt_T,
        view_V=view_V,
        option_count=question.option_count,
    )


def build_problems(
    questions: Iterable[Question],
    tokenizer: Tokenizer,
    *,
    instruction: str | None,
    prompt_format: str | None,
    max_prompt_tokens: int,
    system: str | None = None,
    on_bad_row: OnBadRow = "stop",
    file: str = "data set",
    views: int = 0,
) -> BuiltProblems:
    """Build the problem of every question; with ``skip``, a prompt that is too long is left out and reported."""
    problems: list[Problem] = []
    skipped: list[SkippedRow] = []
    for question in questions:
        try:
            problem = build_problem(
                question,
                tokenizer,
                instruction=instruction,
                prompt_format=prompt_format,
                max_prompt_tokens=max_prompt_tokens,
                system=system,
                file=file,
                views=views,
            )
        except DataRowError as error:
            if on_bad_row == "stop":
                raise
            skipped.append(SkippedRow.of(error))
        else:
            problems.append(problem)
    if skipped and not problems:
        raise DataError(f"No question of {file} is short enough: {skipped[0].reason}.", "Raise --max_prompt_tokens.")
    return BuiltProblems(problems=tuple(problems), skipped=tuple(skipped))


def _check_format(tokenizer: Tokenizer, prompt_format: str | None, system: str | None) -> None:
    if prompt_format is None:
        if not tokenizer.chat_template:
            raise UsageError("The model has no chat template.", "Give --prompt_format, for example 'Question: {question} Answer:'.")
    elif PLACEHOLDER not in prompt_format:
        raise UsageError(f"--prompt_format {prompt_format!r} does not hold {PLACEHOLDER}.", "Put it where the question goes.")
    elif system is not None:
        raise UsageError("A system message needs the chat template.", "Write it into --prompt_format.")


def _with_instruction(text: str, tokenizer: Tokenizer, instruction: str | None, prompt_format: str | None, system: str | None) -> str:
    if not instruction:
        return text
    bare = _chat(text, tokenizer, system, tokenize=False) if prompt_format is None else prompt_format + text
    return text if instruction in bare else f"{text}\n{instruction}"


def _token_ids(text: str, tokenizer: Tokenizer, prompt_format: str | None, system: str | None) -> tuple[int, ...]:
    if prompt_format is not None:
        return tuple(tokenizer.encode(prompt_format.replace(PLACEHOLDER, text)))
    return tuple(_chat(text, tokenizer, system, return_dict=True)["input_ids"])


def _views(text: str, tokenizer: Tokenizer, prompt_format: str | None, system: str | None, count: int) -> tuple[tuple[int, ...], ...]:
    """The first so many wordings of a prompt, each up to where its answer begins. They must begin alike."""
    if count > len(VIEWS):
        raise UsageError(f"--memo_views is {count}, and there are {len(VIEWS)} wordings of a prompt.", f"Use at most {len(VIEWS)}.")
    worded = [view.replace(PLACEHOLDER, text) for view in VIEWS[:count]]
    if prompt_format is not None:
        view_V = tuple(tuple(tokenizer.encode(prompt_format.replace(PLACEHOLDER, each) + " " + ANSWER_BEGINS)) for each in worded)
    else:
        view_V = tuple(tuple(_chat(each, tokenizer, system, answer=ANSWER_BEGINS, return_dict=True)["input_ids"]) for each in worded)
    if len({view[:1] for view in view_V}) > 1:
        raise UsageError("The views of a prompt do not begin alike.", "Let --prompt_format begin with some text before {question}.")
    return view_V


def _chat(text: str, tokenizer: Tokenizer, system: str | None, answer: str | None = None, **options: Any) -> Any:
    """The conversation up to the model's turn, or into it, where ``answer`` begins it."""
    from jinja2 import TemplateError

    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    how = {"add_generation_prompt": True} if answer is None else {"continue_final_message": True}
    try:
        return tokenizer.apply_chat_template(messages, **how, **options)
    except TemplateError as error:
        raise UsageError(f"The model's chat template fails: {first_line(error)}.", "Give --prompt_format instead.") from error
