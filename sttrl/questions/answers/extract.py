"""Find the raw answer in a response: the last balanced box, then "answer is ...", then the last line or the last number."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from sttrl.questions.answers.choice import chosen_letter
from sttrl.questions.answers.dressing import without_bold
from sttrl.questions.answers.notation import spell
from sttrl.questions.answers.numerals import MAGNITUDE
from sttrl.questions.answers.relations import is_constant
from sttrl.questions.answers.response import announcements, tagged_answer, without_thinking
from sttrl.types import Answer, AnswerKind, FinishReason

_BOX_TOKEN: Final = re.compile(
    r"\\{1,2}(?:boxed|fbox|framebox)(?![A-Za-z])(?:\[[^\[\]\n]{0,40}\]){0,2}\s*(?:(?P<opens>\{)|(?P<bare>(?=[-+\d\\(\[|.$]|[A-Za-z](?![A-Za-z]|\s+[A-Za-z]{2}))"
    r"(?:\\[A-Za-z]+|\\[{}%$,;! ]|\{[^{}\n]{0,200}\}|(?!\s+[A-Za-z]{2})[^\\{}$\n]){1,200}))|\\.|[{}]",
    re.DOTALL,
)
_STATEMENT_END: Final = re.compile(r"(?<!\bRs)(?<!\bsq)[.;!?](?=\s|\*|$)|,?\s(?:because|since|which|where|as)\s|\n")
_MATHEMATICAL: Final = re.compile(r"[\d\\=+^]|^[A-Za-z]$")
_WORD: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FILLER: Final = re.compile(
    r",?\s*(?:(?:simply|just|thus|therefore|hence|then|of course|in fact|donc|also|somit|portanto"
    r"|exactly|equal to|equals|given by|clearly|indeed|approximately|about"
    r"|the (?:number|value|integer)),?\s+){1,3}",
    re.IGNORECASE,
)
_COMPUTED: Final = re.compile(r"(?<=\d)\s?\*{1,2}\s?(?=\d)|\\(?:sqrt|times|cdot|div|binom)(?![A-Za-z])|\^")
_SPACED_THOUSANDS: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?: \d{3})+", re.ASCII)
_DELIMITERS: Final = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_PHRASES_READ: Final = 16
_WORDS_ALLOWED: Final = 4
_FONT: Final = re.compile(
    r"(?<![_^])(?<![_^]\{)\\(?:(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|boldsymbol|bm|bf|[mh]box|emph|underline)(?![A-Za-z])"
    r"|(?:textcolor|color)\s*\{[^{}\n]{0,40}\})\s*\{?"
)
_WRITTEN_COMMA: Final = re.compile(r"(?<=\d)(?:\{,\}|\{?\\,\}?)(?=\d{3}(?!\d))", re.ASCII)
_BOLD_OPENS: Final = re.compile(r"(?<![\w)}\]*])\*{2,3}(?=\S)", re.ASCII)
_BOLD_CLOSES: Final = re.compile(r"\*{2,3}")
_LONE_LINE: Final = re.compile(
    r"(?:#### ?)?(?:[A-Za-z] ?= ?)?[-+]?\\?[$£€₹]?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\d+/\d+|\\[dt]?frac\{\d+\}\{\d+\})\\?%?", re.ASCII
)
_DISPLAYED: Final = (*(("$$", "$$"), (r"\[", r"\]")), *((rf"\begin{{{name}}}", rf"\end{{{name}}}") for name in (
    "equation", "equation*", "align", "align*", "aligned", "gather", "gather*", "gathered", "split", "displaymath", "eqnarray", "eqnarray*",
)))  # fmt: skip

_FRACTION: Final = (
    r"(?:\d{1,9}\s?)?\\[dtc]?frac\s*(?:\{[^{}]*\}\s*\{[^{}]*\}|\d\s*\d)|(?:\d{1,9}\s)?\d+\s?/\s?\d+"
    r"|\d{0,20}\.\d{0,20}\\(?:overline|bar|dot)\s*\{\d{1,20}\}"
)
_DECIMAL: Final = (
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\w)|\s{0,2}\\(?:times|cdot)\s{0,2}10\s?\^\s?(?:\{[-+]?\d{1,2}\}|[-+]?\d{1,2}))?"
)
NUMBER: Final = re.compile(
    rf"(?<![\w.^{{}}\\])[-+]?\s?\\?[$£€₹¥]?(?:{_FRACTION}|{_DECIMAL})(?:\s?\\?%|\spercent\b|\s?(?i:{MAGNITUDE}))?",
    re.ASCII,
)
"""A number in running text, with its sign, currency, percent sign and magnitude word. A fraction is matched as a whole."""


def extract(text: str, kind: AnswerKind, finish: FinishReason, option_count: int | None = None) -> Answer:
    """The answer of a response as it is written there (for ``choice``: the letter), or the reason why there is none.

    A text that was cut at the token limit (``finish == "length"``) has no answer. Thinking is not read if anything follows it.
    ``option_count``: how many options a choice question has, lettered from A; a later letter is no answer.
    """
    if finish != "stop":
        return Answer(text=None, invalid="cut")
    text = spell(without_thinking(text))
    tagged = tagged_answer(text)
    raw = None if tagged is None else _tagged(tagged, kind, option_count)
    if raw is None:
        raw = chosen_letter(text, boxes(text), option_count) if kind == "choice" else _raw(text, kind)
    return Answer(text=None, invalid="unparsable") if raw is None else Answer(text=raw)


def boxes(text: str) -> list[tuple[int, str]]:
    r"""Start and content of every balanced ``\boxed{}``, ``\fbox{}`` or ``\framebox{}`` and of ``\boxed 5``, in the order they close."""
    found: list[tuple[int, str]] = []
    open_braces: list[tuple[int, int] | None] = []
    for token in _BOX_TOKEN.finditer(text):
        mark = token[0]
        if mark == "{":
            open_braces.append(None)
        elif mark == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                found.append((box[0], text[box[1] : token.start()]))
        elif token["opens"]:
            open_braces.append((token.start(), token.end()))
        elif token["bare"]:
            found.append((token.start(), token["bare"].rstrip(" .,;:!?")))
    return found


def _tagged(content: str, kind: AnswerKind, option_count: int | None) -> str | None:
    """The answer between answer tags; words such as "answer is" are not needed there."""
    if kind == "choice":
        return chosen_letter(content, boxes(content), option_count)
    return _raw(content, kind) or _stated_mathematics(_inside_delimiters(content))


def _raw(text: str, kind: AnswerKind) -> str | None:
    for _, content in reversed(boxes(text)):
        if content.strip(" *\n"):
            return without_bold(content.strip())
    for statement in _statements(text):
        answer = _stated_number(statement) if kind == "number" else _stated_mathematics(statement)
        if answer is not None:
            return answer
    return _last_number(text) if kind == "number" else _last_line(text)


def _statements(text: str) -> Iterator[str]:
    """The text after each "answer is", up to the end of its formula or sentence; the last one comes first."""
    for _, end in islice(reversed(announcements(text)), _PHRASES_READ):
        filler = _FILLER.match(text, end)
        start = filler.end() if filler else end
        for opening, closing in _DELIMITERS:
            if text.startswith(opening, start):
                stop = text.find(closing, start + len(opening))
                break
        else:
            match = _STATEMENT_END.search(text, start)
            stop, opening = (match.start() if match else len(text)), ""
        if stop > start:
            yield _without_closing_stars(text, start, text[start + len(opening) : stop]).strip(" *")


def _without_closing_stars(text: str, start: int, statement: str) -> str:
    """The statement without the stars that end bold type, if the bold type began before the statement on the same line."""
    before = without_bold(text[max(text.rfind("\n", 0, start) + 1, start - 200) : start])
    return _BOLD_CLOSES.sub("", statement, count=1) if _BOLD_OPENS.search(before + "x") else statement


def _stated_mathematics(statement: str) -> str | None:
    """The statement itself, or None if it is prose: a sentence is no answer."""
    prose = len(_WORD.findall(statement[:2000])) > _WORDS_ALLOWED
    return statement if not prose and _MATHEMATICAL.search(statement) else None


def _stated_number(statement: str) -> str | None:
    value = _plain_numbers(statement).rpartition("=")[2].strip()
    if _SPACED_THOUSANDS.fullmatch(value) or (_COMPUTED.search(value) and is_constant(value)):
        return value
    number = NUMBER.search(value)
    return number[0].strip() if number else None


def _last_number(text: str) -> str | None:
    latest = deque(NUMBER.finditer(_plain_numbers(text)), maxlen=1)
    return latest[0][0].strip() if latest else None


def _plain_numbers(text: str) -> str:
    r"""The text without fonts and colours, and with a plain comma for thousands: ``\mathbf{12{,}000}`` becomes 12,000."""
    return _WRITTEN_COMMA.sub(",", _FONT.sub(" ", text))


def _last_line(text: str) -> str | None:
    """A displayed formula at the end of the text, or a number or formula that is the whole last line."""
    text = text.rstrip(" .\n*")
    inside = _displayed(text)
    if inside is not None:
        return _stated_mathematics(inside)
    line = text[text.rfind("\n") + 1 :].strip(" *")
    inside = _inside_delimiters(line)
    return inside if inside != line else line.lstrip("# ") if _LONE_LINE.fullmatch(line) else None


def _displayed(text: str) -> str | None:
    """The displayed formula at the end of the text (of a chain of equalities the last value). None if there is none, "" for several
    equations."""
    for opening, closing in _DISPLAYED:
        if text.endswith(closing):
            start = text.rfind(opening, 0, len(text) - len(closing))
            inside = text[start + len(opening) : -len(closing)].strip() if start >= 0 else ""
            within = _displayed(inside)
            return _chained(inside) if within is None else within
    return None


def _chained(formula: str) -> str:
    """The last value of a chain such as ``x &= 1+1 \\\\ &= 2``; "" if later rows have left sides of their own."""
    if "\\begin" in formula or not ("&" in formula or "\\\\" in formula):
        return formula
    first, *rows = (row.replace("&", "").strip() for row in formula.removesuffix("\\\\").split("\\\\"))
    if not all(row.startswith("=") for row in rows):
        return ""
    return rows[-1].lstrip("= ") if rows else first


def _inside_delimiters(text: str) -> str:
    """The formula inside the delimiters if the whole text is one formula, else the text."""
    for opening, closing in _DELIMITERS:
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            inside = text[len(opening) : -len(closing)].strip()
            return inside if opening not in inside else text
    return text
