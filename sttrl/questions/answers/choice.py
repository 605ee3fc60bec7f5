"""Strict reading of a choice letter. A letter inside a word, the article "a", the pronoun "I" and two different letters are no choice."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from sttrl.questions.answers.response import announcements, supposed

LETTERS_UNLESS_KNOWN: Final = 10
"""The number of options, A to J, that is assumed if it is not known."""
_WRAPPER: Final = re.compile(
    r"\\(?:textcolor|colorbox|color)\s*(?:\[\w{0,8}\])?\s*\{[^{}\n]{0,40}\}"
    r"|\\(?:text(?:bf|it|rm|sf|tt|up|sc|normal)?|math(?:rm|bf|it|sf|tt|normal|cal|bb|scr|frak)"
    r"|emph|underline|boldsymbol|bm|pmb|bf|rm|it|bfseries|[mh]box|ensuremath|left|right|displaystyle|textstyle|small|normalsize|large|Large|LARGE|huge|Huge|boxed|fbox|framebox)(?![A-Za-z])|[{}$*`\"]|__|\\[()\[\]!{}]"
)
_GAP: Final = re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~")
_ONE: Final = r"(?:\(\s*([A-Za-z])\s*\)|<\s*([A-Za-z])\s*>|\[\s*([A-Za-z])\s*\]|'([A-Za-z])'|([A-Za-z]))"
_NOUN: Final = (
    "(?:answer (?:choice|option)|options?|choice|letter|alternative|answer|opción|opcion|opção|opzione|lettre"
    "|letra|lettera|alternativa|buchstabe|вариант|选项|選項)"
)
_ARTICLE: Final = r"(?:the|la|el|le|die|der|das|il|o|a(?=\s+(?:opção|letra|alternativa|\(?[A-J]\)?[.!\s]*$)))"
_ADVERB: Final = (
    r"(?:of course|in fact|actually|certainly|surely|donc|also"
    r"|therefore|thus|hence|then|clearly|simply|indeed|likely|probably|most likely|obviously|definitely|given by|:)"
)
_LEAD: Final = re.compile(rf"[\s,]*(?:{_ADVERB},?\s+)?(?:{_ARTICLE}\s+|l')?(?:correct\s+)?(?:{_NOUN}\s*(?::|\bis\b)?\s*)?", re.IGNORECASE)

_REASON: Final = (
    r"(?:because|since|as|which|with|due|but|not|rather|instead|for"
    r"|is(?!\s+(?:an?|the)\s+(?!(?:only|most|best|right|correct|answer|option|choice|one)\b)))\b"
)
_DASH: Final = r"\s+[-—]\s+(?![A-Za-z](?![A-Za-z]))"
_AFTER_CAPITAL: Final = rf"(?=\)|'[dt][ıiuü]r\b|[.,;:!?](?![A-Za-z])|\s*$|\s+{_REASON}|\s+(?:and|or)\b|\s*[/&(]|{_DASH}|\s*[^\x00-\x7f])"
_AFTER_SMALL: Final = r"(?=\)|[.,;:!?](?![A-Za-z])|\s*$|\s+(?:because|since)\b|\s*/)"
_STATED: Final = re.compile(
    rf"\(\s*([A-Za-z])\s*\)|<\s*([A-Za-z])\s*>|\[\s*([A-Za-z])\s*\]|'([A-Za-z])'|([A-Z]){_AFTER_CAPITAL}|([a-z]){_AFTER_SMALL}"
)
_LINK: Final = r"(?:\s*[,/&;+]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+)"
_NO_WORD: Final = r"(?!I\s+(?!is\b|are\b|or\b|and\b|because\b)[a-z]|A\s+[a-z])"
_SEVERAL: Final = re.compile(
    rf"(?:\(([A-Za-z])\)|([A-Z])){_LINK}{_NO_WORD}(?:\(([A-Za-z])\)|([A-Z]))(?![A-Za-z0-9'])"
    rf"|(?:\(([A-Za-z])\)|([a-z])){_LINK}(?:\(([A-Za-z])\)|([a-z]))(?![A-Za-z0-9'])|([A-Z])\s+([A-Z])(?![A-Za-z0-9'])"
)
_LISTED: Final = re.compile(r"([A-Za-z])\)\s.{0,200}?(?<![A-Za-z0-9(])([A-Za-z])\)")
_LONE: Final = re.compile(rf"{_ONE}[.:!]?")
_DESCRIBED: Final = re.compile(
    rf"(?:\(([A-Za-z])\)[.:]?|\[([A-Z])\][.:]?|([A-Za-z])[).:](?=\s|\d|\\|-|$)|([A-Z])(?:{_DASH}|,?\s*(?<=[,\s])(?=[-\d\\.])|\s+\((?=[^()]*\)$))).*"
    r"|(?:\(([A-Z])\)|([A-Z]))\s+is\s+(?:the\s+)?(?:only\s+|most\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice|one))?[.!]?",
    re.DOTALL,
)
_RIGHT: Final = re.compile(
    r"\s(?:is|must be|would be)\s+(?:(?:the|clearly|therefore|thus|indeed)\s+){0,3}(?:(?:only|most|best|right|correct)\s+){0,2}"
    r"(?:correct|right|best|answer|option|choice|one|appropriate|accurate)(?=\s*(?:[.,;:!]|$)|\s+(?:because|since|as|answer|option|choice|one|here)\b)",
    re.MULTILINE,
)
_RIGHT_ONE: Final = re.compile(
    r"(?:(?:^|[.,:;]\s|\b(?i:so|thus|therefore|hence|that|only|then|conclude|believe|think|say),?\s)\s*(?:\(([A-Za-z])\)|([A-Z]))"
    rf"|(?<!if )(?<!whether )\b(?i:{_NOUN})\s*(?:\(([A-Za-z])\)|([A-Za-z])))\s*$"
)
_RIGHT_NOUN: Final = r"(?:option|choice|one|response|alternative|letter|selection|pick)"
_LAST_CAPITAL: Final = r"(?:(?-i:[A-Z])|\((?-i:[A-Z])\))\s*(?:[.!]\s|[.!]?$)"
_CHOSEN: Final = re.compile(
    rf"\b(?:correct|right|best|final|appropriate|selected|chosen|my|our)\s+{_RIGHT_NOUN}\s*(?:\b(?:is|would be|must be)\b|:|-(?=\s))"
    r"|\b(?:I|we)(?:'(?:d|ll|m|re)|\s(?:would|will|should|must|am|are))?\s(?:choose|chose|(?:pick|select)(?:ed)?|(?:go|going|went) with)\s"
    r"|\blet(?:'s| us) go with\s"
    rf"|\b(?:choose|pick|select|selecting|choosing)\s+(?={_NOUN}|\()|^\s{{0,8}}(?:{_RIGHT_NOUN}|correct|solution|conclusion|result|verdict)\s*:"
    rf"|(?:^|[.:;,]\s{{1,2}}|\b(?:so|thus|therefore|hence|let us|let's),?\s)(?:choose|pick|select)\s(?={_LAST_CAPITAL})"
    rf"|\bправильный\s+(?:ответ|вариант)\s*(?::|[-—]\s|(?=\s{_LAST_CAPITAL}))|(?:정답|答案|válasz)(?=\s{_LAST_CAPITAL})"
    r"|\bcevap(?=\s(?-i:[A-Z])'[dt][ıiuü]r)|उत्तर(?=\s\(?(?-i:[A-Z])\)?(?:\sहै|\s*[.।]?$))|解答\s*:"
    rf"|\brichtig\s+ist\s(?={_LAST_CAPITAL})"
    r"|\brichtige\s+(?:Option|Wahl|Alternative)\s+(?:ist|lautet)\s"
    r"|\b(?:opción|opcion|opção|alternativa|opzione|option)\s+(?:correcta|correta|corretta|correcte)\s+(?:(?:es|é|è|est)\s|:|\s:)"
    r"|(?:(?<![不没])[应應](?:[该該])?|(?<![不没])[故以此而我们們可题題]|^)[选選][择擇]?:?",
    re.IGNORECASE | re.MULTILINE,
)
_CHOSEN_WORD: Final = re.compile(
    r"option|choice|letter|alternativ|response|one is|selection|select|pick|choose|choosing|chose"
    r"|go with|going with|went with|olution|onclusion|esult|erdict|ichtig|cevap|válasz|उत्तर|opci|opç|opzione"
    r"|정답|答案|解答|равильн|[选選]"
    r"|Option|Choice|Letter|Alternativ|Response|Selection|Select|Pick|Choose|Opci|Opç|Opzione|orrect\s?:|CHOICE|OPTION"
)
_CHINESE_RIGHT: Final = re.compile(
    r"(?<![A-Za-z0-9和与及或果若设設非不])(?<![A-Za-z][,/])(?:\(([A-Za-z])\)|([A-Za-z]))\s?(?:[选選]?[项項])?\s?[是为為]?\s?(?:正[确確]|[对對]的)的?"
    r"(?:答案|[选选選][项項])?(?=\s*(?:[.,;!]|$)|因)",
    re.MULTILINE,
)
_WINDOW: Final = (30, 50)
_BEFORE_LETTER: Final = re.compile(r"[\s:*#]*")
_REJECTED: Final = r"(?:not|\w{2,6}n't|cannot|never|if|suppose|whether|than|wrong|incorrect|eliminat\w*|exclud\w*|rules?|except)"
_CONCLUSION: Final = re.compile(
    r"(?:(?:so|thus|therefore|hence|it is|it's|it must be|it has to be|it can only be|that is|that's|this is"
    r"|(?:this|that|it|which) (?:matches|corresponds to)|(?:I|we) (?:think|believe|say|conclude)(?: that)?),?\s+)+"
    rf"(?:the\s+)?(?:{_NOUN}\s+)?{_ONE}[.!]?"
    rf"|(?:(?!\b{_REJECTED}\b).){{0,200}}?\b(?:is|be|to|with|matches|gives|so|therefore|thus|hence),?\s+(?:option|choice|answer)\s*{_ONE}[.!]?"
    rf"|(?:(?!\b{_REJECTED}\b).){{0,200}}?\b(?:matches|corresponds to|corresponding to)\s+\(([A-Z])\)[.!]?",
    re.IGNORECASE,
)
_STATEMENT_CHARS: Final = 80
_STATEMENTS_READ: Final = 64


def letters_in(content: str) -> frozenset[str]:
    r"""The letters that ``content`` consists of: one for ``B``, ``(b)``, ``Option B``, ``\text{B}``, ``B) 10 m``; two for ``A or B``."""
    plain = _plain(content).strip()
    plain = plain[_opening(plain) :]
    several = _SEVERAL.match(plain)
    if several:
        return _found(several)
    match = _LONE.fullmatch(plain) or _DESCRIBED.fullmatch(plain)
    return _found(match) if match else frozenset()


def chosen_letter(text: str, boxes: Sequence[tuple[int, str]], option_count: int | None = None) -> str | None:
    """The letter that a response chooses, or None. A letter after the last option (after J if their number is unknown) is no answer.

    If there is a box with a letter, the text from the line of the last such box to the end is read. Otherwise the text from the last line
    that states an answer ("answer is", "(C) is correct", "I choose") is read, or else the conclusion in the last line. Two different
    letters there are no answer; earlier lines do not count. ``boxes``: start and content of every box in ``text``.
    """
    last = option_count or LETTERS_UNLESS_KNOWN
    boxed = [(start, letters) for start, content in boxes if (letters := letters_in(content))]
    if boxed:
        line = text.rfind("\n", 0, boxed[-1][0]) + 1
        stated = (letters for _, letters in _statements(_plain(text[line:])))
        return _only(frozenset().union(*(letters for start, letters in boxed if start >= line), *stated), last)
    plain = _plain(text)
    statements = [(start, letters) for start, letters in _statements(plain) if letters]
    if statements:
        line = plain.rfind("\n", 0, max(start for start, _ in statements)) + 1
        return _only(frozenset().union(*(letters for start, letters in statements if start >= line)), last)
    return _only(_concluded(plain), last)


def _plain(text: str) -> str:
    return _WRAPPER.sub("", _GAP.sub(" ", text))


def _statements(plain: str) -> Iterator[tuple[int, frozenset[str]]]:
    """Start and letters of the last few "answer is B", "I choose B" and "B is correct" in a text without wrappers."""
    for start, end in (*announcements(plain), *_choices(plain)):
        yield start, _letters_at(plain[end : end + _STATEMENT_CHARS].partition("\n")[0])
    for right in deque(_RIGHT.finditer(plain), maxlen=_STATEMENTS_READ):
        line = plain[max(0, right.start() - _STATEMENT_CHARS) : right.start()].rpartition("\n")[2]
        subject = _RIGHT_ONE.search(line)
        letter = max(map(subject.start, range(1, subject.re.groups + 1))) if subject else 0
        yield right.start(), _found(subject) if subject and not supposed(line, letter) else frozenset()
    if not plain.isascii():
        for right in deque(_CHINESE_RIGHT.finditer(plain), maxlen=_STATEMENTS_READ):
            yield right.start(), frozenset() if supposed(plain, right.start()) else _found(right)


def _choices(plain: str) -> Iterator[tuple[int, int]]:
    """For each of the last few "the right choice is" and "I choose": its start, and where the letter begins."""
    before, after = _WINDOW
    for word in deque(_CHOSEN_WORD.finditer(plain), maxlen=_STATEMENTS_READ):
        for phrase in _CHOSEN.finditer(plain, max(0, word.start() - before), word.end() + after):
            gap = _BEFORE_LETTER.match(plain, phrase.end())
            if not supposed(plain, phrase.start()):
                yield phrase.start(), gap.end() if gap else phrase.end()


def _letters_at(statement: str) -> frozenset[str]:
    statement = statement[_opening(statement) :]
    match = _SEVERAL.match(statement) or _STATED.match(statement)
    if match and match.re is _STATED and (listed := _LISTED.match(statement)):
        match = listed
    return _found(match) if match else frozenset()


def _concluded(plain: str) -> frozenset[str]:
    """The letter in the last line: the line is a letter or ends with one, or it is the only line that begins with an option."""
    lines = [line.strip() for line in plain.split("\n") if line.strip()]
    if not lines:
        return frozenset()
    last_line = lines[-1][-2 * _STATEMENT_CHARS :] if len(lines[-1]) > 1000 else lines[-1]
    last_line = last_line.lstrip("✅✔☑👉➡🔹 ")
    lone = _LONE.fullmatch(last_line[_opening(last_line) :])
    conclusion = lone or _CONCLUSION.fullmatch(last_line)
    if conclusion:
        return _found(conclusion)
    alone = len(lines) == 1 or lines[-2].endswith(":")
    return letters_in(last_line) if alone and not _LISTED.match(last_line) else frozenset()


def _opening(plain: str) -> int:
    """Where the letter may begin: after words such as "option" or "therefore the"."""
    lead = _LEAD.match(plain)
    return lead.end() if lead else 0


def _found(match: re.Match[str]) -> frozenset[str]:
    return frozenset(letter.upper() for letter in match.groups() if letter)


def _only(letters: frozenset[str], last: int) -> str | None:
    options = [letter for letter in letters if ord(letter) - ord("A") < last]
    return options[0] if len(options) == 1 and (len(letters) == 1 or not _alternatives(letters, last)) else None


def _alternatives(letters: frozenset[str], last: int) -> list[str]:
    """Letters after the last option that may be meant as options: all up to J, except I, which may be the pronoun."""
    return [letter for letter in letters if last <= ord(letter) - ord("A") < LETTERS_UNLESS_KNOWN and letter != "I"]
