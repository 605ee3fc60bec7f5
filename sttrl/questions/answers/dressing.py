"""Removes formatting from an answer: fonts, sizes, colours, spacing, delimiters, Markdown, and a letter or words before the value."""

from __future__ import annotations

import re
from typing import Final

_ROMAN: Final = re.compile(
    r"\\(?:mathrm|mathsf|mathtt|textbf|textrm|textit|textsf|texttt|textup|textnormal|textsc|mbox|hbox|emph|rm)(?![A-Za-z])\s*(?=\{)"
)
_ROMAN_GROUP: Final = re.compile(r"\{\s*\\rm(?![A-Za-z])\s*(?=[A-Za-z(])")
_EMPTY_TEXT: Final = re.compile(r"\\text\s*\{\s*\}")
_PUNCTUATION: Final = re.compile(r"\\text\s*\{\s*([()\[\]])\s*\}")
_TAGS: Final = re.compile(r"<(b|u|i|em|strong|mark|span)>(.*?)</\1>", re.DOTALL)
_COLOUR: Final = (
    r"\\(?:(?:textcolor|colorbox|color)\s*(?:\[\w*\])?\s*\{[^{}]*\}|fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}|bbox\s*(?:\[[^\[\]]*\])?)\s*"
)
_WRAPPERS: Final = (
    r"\\(?:boxed|fbox|framebox|underline|mathbf|mathit|bf|it|boldsymbol|bm|pmb|ensuremath|smash|mathnormal|mathop|mathrel)\s*\{"
)
_GROUPS: Final = re.compile(rf"(?P<dress>{_COLOUR}\{{?|{_WRAPPERS})|\\.|[{{}}]", re.DOTALL)
_SWITCHES: Final = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm|sf|tt|sc|bfseries|itshape|bold|boldmath"
    r"|displaystyle|textstyle|scriptstyle|limits|nolimits|strut|mathstrut|centering|qed|checkmark|blacksquare|square|Box|mathbf|boldsymbol|bm|boxed|fbox)(?![A-Za-z])\s*"
)
_ARGUMENTS: Final = re.compile(r"\\(?:tag|label|hspace|vspace|phantom|hphantom)\*?\s*\{[^{}]*\}")
_THIN_THOUSANDS: Final = re.compile(r"(?<=\d)(?:\{\\,\}|(?<!\\)\\,)(?=\d{3}(?!\d))", re.ASCII)
_SPACING: Final = re.compile(r"(?<!\\)\\(?:[,;:> \n]|(?:q?quad|enspace|thinspace|newline)(?![A-Za-z]))|~")
_SIZES: Final = re.compile(r"\\(?:left|right|middle|[bB]ig{1,2}[lrm]?)(?![A-Za-z])\s*\.?")
_FOREIGN_DOLLAR: Final = re.compile(r"(?<![A-Za-z\\])(?:US|HK|NZ|[ACSR])\s?(?=\\?\$\s*\}?\s*\d)")
_DOLLARS: Final = re.compile(r"\\?\$|(?<!\\)\\[()\]]|(?<!\\)\\\[")
_UNDERSCORED: Final = re.compile(r"\A\s*__([^_]+)__\s*\Z")
_BOLD: Final = re.compile(r"(?<![\w)*])\*\*([^*]+)\*\*")
_PREFACE: Final = re.compile(
    r"(?:\\text\s*\{\s*)?(?:the\s+)?(?:(?:final|correct)\s+)?answer\s*(?:is\b\s*:?|:|=)\s*\}?|\\(?:therefore|Rightarrow|implies)(?![A-Za-z])",
    re.IGNORECASE,
)
_ABOUT_WORD: Final = r"(?:about|approximately|approx\.?|roughly)"
_ABOUT: Final = re.compile(rf"\\(?:approx|sim|simeq)(?![A-Za-z])|\\text\s*\{{\s*{_ABOUT_WORD}\s*\}}|{_ABOUT_WORD}\s", re.IGNORECASE)
_VALUE: Final = r"(?:[-+]?\s*\.?\d|-?\s*\\(?:[dtc]?frac|sqrt|text\s*\{\s*\d))"
_MARKED: Final = re.compile(r"\\text\s*\{\s*(?:\([A-J]\)|[A-J][).:])\s*(?P<inside>[^{}]*)\}(?P<rest>.*)", re.DOTALL)
_HEADING: Final = re.compile(
    rf"\A(?:\\text\s*\{{\s*[A-Z][a-z]+(?: [A-Za-z]+)*\s*:\s*\}}\s*|\\text\s*\{{\s*[A-Z][a-z]+(?: [A-Za-z]+)*\s*:\s*(?=\d[\d.,]*\s*\}}\Z)"
    rf"|[A-Z][a-z]+(?: [A-Za-z]+)*\s*:\s+)(?={_VALUE})"
)
_LETTER_GROUP: Final = re.compile(r"\A(?:\\text\s*)?\{\s*\([A-J]\)\s*\}\s*:?\s*(?=.)")
_LETTERED: Final = re.compile(rf"(?:\([A-J]\)[.:]?\s*|[A-J]\)\s*|[A-J][.:]\s+)(?P<rest>{_VALUE}.*)", re.DOTALL)


def undress(text: str) -> str:
    r"""The text without sizes, colours, spacing and delimiters. Commands for roman fonts become ``\text``, which marks words."""
    text = _SPACING.sub(" ", _THIN_THOUSANDS.sub("", text.lstrip(" \n").removeprefix("\\\\")))
    text = _ROMAN_GROUP.sub(r"\\text{", _ARGUMENTS.sub("", text))
    text = _SWITCHES.sub("", unwrapped(_ROMAN.sub(r"\\text", text)))
    text = _TAGS.sub(r"\2", _PUNCTUATION.sub(r"\1", text))
    text = _EMPTY_TEXT.sub("", _DOLLARS.sub("", _FOREIGN_DOLLAR.sub("", _SIZES.sub("", text))))
    text = _UNDERSCORED.sub(r"\1", text).strip(' \n\r*`"')
    return text.rstrip(".,;: \n\r\\")


def without_bold(text: str) -> str:
    """The text without the stars of Markdown, as in ``**5** cm``. In ``2**3`` the stars are a power and stay."""
    return _BOLD.sub(r"\1", text)


def unwrapped(text: str) -> str:
    r"""The text without commands that only format a group, and without the group's braces: ``\underline{5}`` is ``5``."""
    parts: list[str] = []
    dressed: list[bool] = []
    end = 0
    for token in _GROUPS.finditer(text):
        parts.append(text[end : token.start()])
        end = token.end()
        opens, drops = token[0].endswith("{") and token[0] != r"\{", token["dress"] is not None
        if opens:
            dressed.append(drops and not text[: token.start()].rstrip().endswith(("^", "_")))
            drops = dressed[-1]
        elif token[0] == "}" and dressed:
            drops = dressed.pop()
        parts.append("" if drops else token[0][-1] if token["dress"] else token[0])
    return "".join(parts) + text[end:] if not any(dressed) else text


def without_preface(text: str) -> str:
    r"""The value without "the answer is", ``\approx`` or an option's letter before it, as in ``\textbf{(B)}\ 25``."""
    for pattern in (_PREFACE, _ABOUT):
        match = pattern.match(text)
        if match and text[match.end() :].strip(" }"):
            within = "\\text{" if "{" in match[0] and not match[0].endswith("}") else ""
            text = within + text[match.end() :].lstrip()
    text = _HEADING.sub("", _LETTER_GROUP.sub("", text))
    marked = _MARKED.fullmatch(text)
    if marked and (marked["inside"].strip() or marked["rest"].strip()):
        inside = f"\\text{{{marked['inside']}}}" if marked["inside"].strip() else ""
        return (inside + marked["rest"]).strip()
    lettered = _LETTERED.fullmatch(text)
    return lettered["rest"] if lettered else text
