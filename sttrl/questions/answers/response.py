"""Finds the part of a response that can contain the answer: the text after the thinking, and phrases that announce an answer."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from sttrl.questions.answers.notation import spell

_THINKING: Final = re.compile(
    r"[<\[◁](?P<closes>/?)(?:(?:[Tt]hink|[Tt]hinking|[Tt]hought|[Rr]easoning|THINK)[>\]▷]|\|(?:begin|(?P<ends>end))_of_thought\|>)"
)
_SPECIAL: Final = re.compile(r"<\|(?!(?:begin|end)_of_thought)[A-Za-z_]{1,32}\|>|<｜[^<>]{1,32}｜>|</?s>|<(?:eos|pad|end_of_turn)>")
_TAGGED: Final = re.compile(r"<(/?)(?:answer|Answer|ANSWER)>")

_ASCII_NOUNS: Final = (
    "answer respuesta reponse antwort resposta risposta antwoord svaret svar cevap jawabannya jawaban vastaus raspuns gabarito"
)
_OTHER_NOUNS: Final = "réponse lösung ответ відповідь odpowiedź odpověď válasz απάντηση răspunsul răspuns"
_UNCASED_NOUNS: Final = (
    "(?:đáp|Đáp) (?:án|số)|[cC]âu trả lời|答案|正[确確]的?[选選][项項]|答え|正解|정답|답|الإجابة|الجواب|תשובה|उत्तर|คำตอบ"
)


def _any_of(nouns: str, more: str = "") -> re.Pattern[str]:
    cased = "|".join(re.escape(spell(spelt).rstrip()) for noun in nouns.split() for spelt in (noun, noun.capitalize(), noun.upper()))
    # The pattern begins with letters, not with a word boundary: that is much faster to search.
    return re.compile(rf"(?:{cased})\b|(?:Ans|ANS|ans(?!\s*=))\b\.?{more}")


_NOUN: Final = _any_of(_ASCII_NOUNS)
_NOUN_ANYWHERE: Final = _any_of(f"{_ASCII_NOUNS} {_OTHER_NOUNS}", f"|{_UNCASED_NOUNS}")
_COPULAS: Final = (
    r"\b(?:is|would be|must be|should be|will be|has to be|can only be|equals|es|est|ist|é|è|är|er|lautet|jest|adalah|là|este|je)\b"
    rf"|{re.escape(spell('είναι').rstrip())}|(?<=odpowiedź )to\b|是|为|為|[选選][择擇]?|は|은|는|هي|هو|היא|है|คือ"
)
_ADJECTIVES: Final = r"(?:\s+(?:correct[aeo]?|corret[ao]|corrett[ao]|finale?|đúng|choice|option)\b)"
_LEADS_TO: Final = re.compile(
    rf"(?:[^\n.:=]{{0,60}}?(?:{_COPULAS})|{_ADJECTIVES}?[\s*#]*[:=](?!>)|(?<=ans\.)(?=\s)|(?<=[案答])\]"
    r"|[ *]*(?:[-—]|[-=]{1,2}>|\\(?:to|Rightarrow) )(?=\s))[\s:*#]*",
    re.IGNORECASE,
)
_HEADING_START: Final = re.compile(r"[ #*]*(?:the )?(?:(?:final|correct) )?", re.IGNORECASE)
_HEADING_END: Final = re.compile(r"[ *]*\n[\s:*#]*")
_SUPPOSED: Final = re.compile(
    r"(?:\b(?:if|whether|unless|suppos(?:e|ing)|assum(?:e|ing)|imagine|pretend|untrue|false|doubt|never|cannot|not|not true"
    r"|not (?:think|believe|say|mean))|n't|n't (?:think|believe|say|mean))\s+"
    r"(?:that\s+)?(?:the\s+)?(?:(?:correct|right|final|best|option|choice)\s+){0,2}\(?$"
    r"|(?:如果|假设|假設|若|并非|並非)\s*(?:选项|選項)?$",
    re.IGNORECASE,
)
_SUPPOSED_CHARS: Final = 60
_NOUNS_READ: Final = 64
_HEADING_CHARS: Final = 40


def announcements(text: str) -> list[tuple[int, int]]:
    """For the last few phrases that announce an answer: their start, and where the answer begins.

    Such phrases are "the final answer is", "Answer:" and a heading; the usual words of other languages are known too.
    """
    found = (_NOUN if text.isascii() else _NOUN_ANYWHERE).finditer(text)
    nouns = deque((noun for noun in found if not _joined(text, noun)), maxlen=_NOUNS_READ)
    ends = ((noun.start(), _LEADS_TO.match(text, noun.end()) or _heading(text, noun)) for noun in nouns)
    return [(start, end.end()) for start, end in ends if end and not supposed(text, start)]


def supposed(text: str, start: int) -> bool:
    """Whether the statement at ``start`` is only supposed or denied: it follows "if", "suppose that" or "it is not true that"."""
    return _SUPPOSED.search(text[max(0, start - _SUPPOSED_CHARS) : start]) is not None


def _joined(text: str, noun: re.Match[str]) -> bool:
    """Whether the noun is the end of a longer word. Scripts without spaces between words are not checked."""
    before = text[noun.start() - 1 : noun.start()]
    return before.isalnum() and (before + noun[0][0]).isascii()


def _heading(text: str, noun: re.Match[str]) -> re.Match[str] | None:
    before = text[max(0, noun.start() - _HEADING_CHARS) : noun.start()]
    line_start = before.rpartition("\n")[2]
    whole_line = len(line_start) < _HEADING_CHARS and _HEADING_START.fullmatch(line_start)
    return _HEADING_END.match(text, noun.end()) if whole_line else None


def without_thinking(text: str) -> str:
    """The text after the thinking of a response, without special tokens.

    The opening tag may be in the prompt. Unfinished thinking is left out. If nothing follows finished thinking, the thinking is returned.
    """
    text = _SPECIAL.sub(" ", text).rstrip()
    start, end = 0, None
    for tag in _THINKING.finditer(text):
        if tag["closes"] or tag["ends"]:
            start, end = tag.end() if tag.end() < len(text) else start, None
        else:
            end = tag.start() if end is None else end
    return text[start:end]


def tagged_answer(text: str) -> str | None:
    """The content of the last ``<answer>``, up to ``</answer>`` or the end of the text; None if there is none or it is empty."""
    start, content = None, None
    for tag in _TAGGED.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            content, start = text[start : tag.start()].strip() or content, None
    return content if start is None else text[start:].strip() or content
