"""From a question to the token ids of its prompt, which sampler and learner both use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sttrl.data.table import OnBadRow, Question, SkippedRow, Turn
from sttrl.data.tokens import Tokenizer, encode_as_text, specials_in
from sttrl.errors import DataError, DataRowError, UsageError, error_text
from sttrl.questions.paraphrases import Paraphrasing, paraphrasing_of
from sttrl.questions.views import View, ViewChoice, permuted_views, worded_views
from sttrl.types import AnswerKind, Problem, Request

PLACEHOLDER = "{question}"
"""What a prompt format contains where the question goes."""

ANSWER_BEGINS = "The answer is \\boxed{"
"""The end of a view, so that the next token is the first of the answer (derived)."""


@dataclass(frozen=True, kw_only=True)
class AskedQuestion(Problem):
    """A question as a problem. ``view_V``: the views under which it is asked, the plain one first, and ``prompt_V`` their prompts; none: it
    is asked in one way only. ``paraphrasing``: how the base writes views; None: it does not.

    ``option_count``: how many options a choice question has, lettered from A; None: not known.
    """

    kind: AnswerKind
    option_count: int | None = None
    view_V: tuple[View, ...] = ()
    prompt_V: tuple[tuple[int, ...], ...] = ()
    paraphrasing: Paraphrasing | None = None

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of the views, also of those that are not written yet."""
        return max(*map(len, self.prompts_of(0)), self.paraphrasing.longest_prompt if self.paraphrasing else 0)

    @property
    def every_prompt(self) -> tuple[tuple[int, ...], ...]:
        """The prompts of all views, those that memo reads, and the request for paraphrases."""
        return (*self.prompts_of(0), *self.begun_V, *([self.paraphrasing.request_T] if self.paraphrasing else []))

    @property
    def views_wanted(self) -> int:
        """How many paraphrases the base writes."""
        return self.paraphrasing.count if self.paraphrasing else 0

    def view_requests(self, seeds_G: Sequence[int]) -> tuple[Request, ...]:
        """What the base is asked for them."""
        return self.paraphrasing.requests(seeds_G) if self.paraphrasing else ()

    @property
    def view_count(self) -> int:
        """How many views the question has now, asked or averaged over."""
        return len(self.begun_V or self.prompts_of(0))

    def with_views(self, texts: Sequence[str]) -> AskedQuestion:
        """The question, asked as it is and in the words of the paraphrases; or with these for memo to average over."""
        assert self.paraphrasing is not None, "the base has written nothing"
        view_V, prompt_V = self.paraphrasing.views(texts)
        if self.paraphrasing.begin is not None:
            return replace(self, begun_V=tuple(self.paraphrasing.begin(view.text) for view in view_V))
        return replace(self, view_V=view_V, prompt_V=prompt_V)

    def prompts_of(self, step: int) -> tuple[tuple[int, ...], ...]:
        """The prompts of the views, the same in every step."""
        return self.prompt_V or (self.prompt_T,)

    def view_key(self, view: int) -> str | None:
        """The name of a view in records; None for a question that is asked in one way only."""
        return self.view_V[view].key if self.view_V else None


def build_problem(
    question: Question,
    tokenizer: Tokenizer,
    *,
    instruction: str | None,
    prompt_format: str | None,
    max_prompt_tokens: int,
    system: str | None = None,
    template_settings: Mapping[str, object] | None = None,
    file: str = "data set",
    views: ViewChoice | None = None,
) -> AskedQuestion:
    """Put a question into the model's chat template, or into ``prompt_format`` where given, and tokenise it.

    ``instruction`` is added after the question unless the prompt contains it already; some chat templates do.
    ``system``: a system message that replaces the row's own; "" removes the row's own.
    ``template_settings``: further arguments of the chat template. ``views``: the views under which it is asked; None: as it is only.
    Raises UsageError if no prompt can be made, DataRowError if it has more than ``max_prompt_tokens``, or cannot be asked under the views.
    """
    system = (question.system if system is None else system) or None
    writer = _Writer(tokenizer, prompt_format, system, question.earlier, template_settings or {})
    writer.check(question.id)
    view_V = _views(question, views, file)
    averaged = views is not None and views.averaged
    texts = [question.text] if averaged or not view_V else [view.text for view in view_V]
    prompt_V = tuple(writer.token_ids(writer.with_instruction(text, instruction)) for text in texts)
    if (longest := max(map(len, prompt_V))) > max_prompt_tokens:
        problem = f"question {question.id!r} makes a prompt of {longest} tokens, more than --max_prompt_tokens {max_prompt_tokens}"
        raise DataRowError(file, question.row, "prompt", problem, "Raise it, or give --on_bad_row skip; a prompt is never cut.")
    if not prompt_V[0]:
        raise UsageError(f"The prompt of question {question.id!r} has no tokens.", "Correct --prompt_format.")
    return AskedQuestion(
        id=question.id,
        index=question.index,
        kind=question.kind,
        prompt_T=prompt_V[0],
        begun_V=_begun(view_V, writer) if averaged else (),
        option_count=len(view_V[0].order) if view_V and view_V[0].order else question.option_count,
        view_V=() if averaged else view_V,
        prompt_V=prompt_V if view_V and not averaged else (),
        paraphrasing=_paraphrasing(question, views, writer, instruction, max_prompt_tokens),
    )


def build_problems(
    questions: Iterable[Question],
    tokenizer: Tokenizer,
    *,
    instruction: str | None,
    prompt_format: str | None,
    max_prompt_tokens: int,
    system: str | None = None,
    template_settings: Mapping[str, object] | None = None,
    on_bad_row: OnBadRow = "stop",
    file: str = "data set",
    views: ViewChoice | None = None,
) -> tuple[tuple[AskedQuestion, ...], tuple[SkippedRow, ...]]:
    """The problem of every question. With ``skip``, a question whose prompt is too long is left out and reported."""
    problems: list[AskedQuestion] = []
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
                template_settings=template_settings,
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
        short = skipped[0].field == "prompt"
        said, remedy = ("is short enough", "Raise --max_prompt_tokens.") if short else ("can be asked", "Leave --question_views out.")
        raise DataError(f"No question of {file} {said}: {skipped[0].reason}.", remedy)
    return tuple(problems), tuple(skipped)


@dataclass(frozen=True)
class _Writer:
    """Writes a question into the chat template with its system message and earlier turns, or into the user's prompt format."""

    tokenizer: Tokenizer
    prompt_format: str | None
    system: str | None
    earlier: tuple[Turn, ...]
    settings: Mapping[str, object]

    def check(self, question_id: str) -> None:
        """Raise UsageError where no prompt can be made."""
        template = self.tokenizer.chat_template
        if self.prompt_format is None:
            if not template:
                raise UsageError("The model has no chat template.", "Give --prompt_format, for example 'Question: {question} Answer:'.")
            for name in self.settings:
                if not re.search(rf"\b{re.escape(name)}\b", str(template)):
                    reason = f"--chat_template_kwargs: the model's chat template reads no {name!r}."
                    raise UsageError(reason, "Correct the name, or leave it out.")
        elif PLACEHOLDER not in self.prompt_format:
            raise UsageError(f"--prompt_format {self.prompt_format!r} does not hold {PLACEHOLDER}.", "Put it where the question goes.")
        elif self.system is not None:
            raise UsageError(
                f"Question {question_id!r} has a system message, and --prompt_format has no place for one.",
                "Write it into --prompt_format, and give --system_prompt '' to leave out the rows' own.",
            )
        elif self.earlier:
            raise UsageError(
                f"Question {question_id!r} has earlier turns of a conversation, and --prompt_format has no place for them.",
                "Leave --prompt_format out.",
            )

    def with_instruction(self, text: str, instruction: str | None) -> str:
        """The question and, below it, the instruction, unless the prompt contains it already."""
        return text if not instruction or instruction in self.prompt(self.texts(text)) else f"{text}\n{instruction}"

    def texts(self, text: str) -> tuple[str, ...]:
        """The question, the system message or "", and the earlier turns."""
        return (text, self.system or "", *(content for _, content in self.earlier))

    def token_ids(self, text: str, answer: str | None = None) -> tuple[int, ...]:
        """Token ids of a prompt. Special tokens that are written in the question or in other messages are plain text."""
        texts = self.texts(text)
        if specials_in(texts, self.tokenizer):
            return encode_as_text(texts, lambda marked: self.prompt(marked, answer), self.tokenizer, begins=self.prompt_format is not None)
        if self.prompt_format is not None:
            return tuple(self.tokenizer.encode(self.prompt(texts, answer)))
        return tuple(self.chat(texts, answer, return_dict=True)["input_ids"])

    def prompt(self, texts: Sequence[str], answer: str | None = None) -> str:
        """The prompt as text, with ``texts`` as `texts` orders them. ``answer``: the beginning of the model's turn."""
        if self.prompt_format is not None:
            return self.prompt_format.replace(PLACEHOLDER, texts[0]) + (f" {answer}" if answer is not None else "")
        return str(self.chat(texts, answer, tokenize=False))

    def chat(self, texts: Sequence[str], answer: str | None, **options: Any) -> Any:
        """The conversation up to the model's turn; with ``answer`` its beginning is included."""
        from jinja2 import TemplateError

        text, system, *earlier = texts
        messages = [{"role": role, "content": content} for (role, _), content in zip(self.earlier, earlier, strict=True)]
        messages.append({"role": "user", "content": text})
        if system:
            messages.insert(0, {"role": "system", "content": system})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        how = {"add_generation_prompt": True} if answer is None else {"continue_final_message": True}
        try:
            return self.tokenizer.apply_chat_template(messages, **how, **options, **self.settings)
        except TemplateError as error:
            remedy = "Leave the system message out with --system_prompt '', or give --prompt_format." if system else "Give --prompt_format."
            raise UsageError(f"The model's chat template fails: {error_text(error, first_line=True)}.", remedy) from error


def _views(question: Question, chosen: ViewChoice | None, file: str) -> tuple[View, ...]:
    """The views of a question; none if it is asked as it is only, or the base writes them. Raises DataRowError if there can be none."""
    if chosen is None or chosen.form == "paraphrases":
        return ()
    if chosen.form == "wordings":
        return worded_views(question.text, chosen.count)
    try:
        return permuted_views(question.text, question.id, question.option_count, chosen)
    except ValueError as error:
        remedy = "Give --on_bad_row skip to leave such questions out, or leave --question_views out."
        raise DataRowError(file, question.row, "options", f"question {question.id!r}: {error}", remedy) from error


def _paraphrasing(
    question: Question, chosen: ViewChoice | None, writer: _Writer, instruction: str | None, max_prompt_tokens: int
) -> Paraphrasing | None:
    """How the base paraphrases a question; None if it does not."""
    if chosen is None or chosen.form != "paraphrases":
        return None
    if chosen.averaged:
        _check_beginnings([writer.token_ids(text) for text in ("How", "1")])
    return paraphrasing_of(
        question.text,
        question.option_count,
        has_options=question.kind == "choice",
        count=chosen.count - 1,
        sampling=chosen.sampling,
        write=lambda text: writer.token_ids(writer.with_instruction(text, instruction)),
        ask=writer.token_ids,
        begin=(lambda text: writer.token_ids(text, ANSWER_BEGINS)) if chosen.averaged else None,
        max_prompt_tokens=max_prompt_tokens,
        context=chosen.context,
    )


def _begun(view_V: Sequence[View], writer: _Writer) -> tuple[tuple[int, ...], ...]:
    """The prompts of views for memo, each ending where the answer begins. They must have the same first token."""
    begun_V = tuple(writer.token_ids(view.text, ANSWER_BEGINS) for view in view_V)
    _check_beginnings(begun_V)
    return begun_V


def _check_beginnings(prompts: Sequence[tuple[int, ...]]) -> None:
    if len({prompt[:1] for prompt in prompts}) > 1:
        raise UsageError(
            "The views of a prompt do not begin with the same token.", "Let --prompt_format begin with some text before {question}."
        )
