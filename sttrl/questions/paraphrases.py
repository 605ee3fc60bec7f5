"""Paraphrases of a question, written by the base policy, as views of it (Self-Harmony, arXiv 2511.01191).

The paper trains the writing too; here the base writes the paraphrases once, with seeds of their own, and the journal keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sttrl.data.rows import text_problem
from sttrl.questions.options import list_start
from sttrl.questions.views import View
from sttrl.types import Request, Sampling

REWRITE = (
    "Rewrite the question below in other words. Keep every number, name and condition, so that its answer stays the same. "
    "Do not answer it. Reply with the rewritten question only.\n\n{question}"
)
"""What the base is asked (derived)."""
SPARE_TOKENS = 64
"""A paraphrase may make a prompt twice as long as the question's, and this much longer (derived)."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, kw_only=True)
class Paraphrasing:
    """How paraphrases of one question are asked for, and how prompts are made of them.

    ``count``: how many are asked for. ``text``: the question; what begins at ``stem``, its options, is kept as it is. ``write``: makes the
    prompt of a question's text. ``longest``: the most tokens of a paraphrase's prompt. ``begin``: makes the prompt with the beginning of an
    answer, where memo averages over the paraphrases; None: they are asked. ``response_tokens``: the most tokens of a response to them.
    """

    count: int
    text: str = field(repr=False)
    stem: int
    request_T: tuple[int, ...]
    sampling: Sampling
    write: Callable[[str], tuple[int, ...]] = field(repr=False)
    longest: int
    response_tokens: int
    begin: Callable[[str], tuple[int, ...]] | None = field(default=None, repr=False)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that the engine needs room for, beside a response of ``response_tokens``.

        A paraphrase may be longer than such a response. The tokens that it is longer count as tokens of the request for it.
        """
        return max(self.longest, len(self.request_T) + self.sampling.max_tokens - self.response_tokens)

    def requests(self, seeds_G: Sequence[int]) -> tuple[Request, ...]:
        """A request for each paraphrase."""
        return Request.each(self.request_T, self.sampling, seeds_G)

    def views(self, texts: Sequence[str]) -> tuple[tuple[View, ...], tuple[tuple[int, ...], ...]]:
        """The plain view and those of the paraphrases, with their prompts.

        A paraphrase is what follows the model's thoughts, if it wrote any. It is left out if it is empty, too long, no valid text, the same
        as the question or an earlier one, or lacks a number of the question, because then it asks something else (derived).
        """
        view_V, prompt_V = [View(key="", text=self.text)], [self.write(self.text)]
        numbers = set(NUMBER.findall(self.text[: self.stem]))
        for number, written in enumerate(texts, 1):
            words = written.rpartition("</think>")[2].strip()
            text = f"{words}{self.text[self.stem :]}"
            if (
                not words
                or text_problem(text) is not None
                or text in [view.text for view in view_V]
                or not numbers <= set(NUMBER.findall(words))
            ):
                continue
            prompt_T = self.write(text)
            if len(prompt_T) <= self.longest:
                view_V.append(View(key=f"paraphrase{number}", text=text))
                prompt_V.append(prompt_T)
        return tuple(view_V), tuple(prompt_V)


def paraphrasing_of(
    text: str,
    option_count: int | None,
    *,
    has_options: bool,
    count: int,
    sampling: Sampling,
    write: Callable[[str], tuple[int, ...]],
    ask: Callable[[str], tuple[int, ...]],
    begin: Callable[[str], tuple[int, ...]] | None,
    max_prompt_tokens: int,
    context: int | None,
) -> Paraphrasing:
    """How a question is paraphrased. ``has_options``: its list of options stays as it is. ``ask``: makes the prompt of a request.

    ``sampling``: of the responses. ``context``: the most tokens that the model reads, prompt and response together; None: not known. A
    paraphrase may have as many tokens as the longest prompt that it may make, but only as many as fit into the context after the request.
    It may always have as many as a response (derived).
    """
    start = list_start(text, option_count) if has_options else None
    stem = len(text[:start].rstrip()) if start is not None and text[:start].strip() else len(text)
    plain = len(write(text))
    longest = max(plain, min(2 * plain + SPARE_TOKENS, max_prompt_tokens))
    request_T = ask(REWRITE.replace("{question}", text[:stem]))
    room = max(longest, sampling.max_tokens)
    if context is not None:
        room = max(sampling.max_tokens, min(room, context - len(request_T)))
    return Paraphrasing(
        count=count,
        text=text,
        stem=stem,
        request_T=request_T,
        sampling=replace(sampling, max_tokens=room),
        write=write,
        longest=longest,
        response_tokens=sampling.max_tokens,
        begin=begin,
    )
