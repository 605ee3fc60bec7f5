r"""Words in an answer: units, currencies and counted nouns are removed, "and" and "or" become commas, a.m. and p.m. stay.

Units are removed from both answers of a comparison: ``5\text{ cm}`` and ``5`` are equal, and so are ``5\text{ cm}`` and
``5\text{ m}``. TTRL's grader, Minerva's rules and math-verify remove units too.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_WHOLE_TEXT: Final = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_OF_NUMBER: Final = re.compile(r"\\text\s*\{\s*([-+]?\d[\d,.]*)(\s+[^{}\d]*|[^\W\d_][^{}\d]*)\}", re.ASCII)
_ONE_LETTER: Final = re.compile(r"\\text\s*\{\s*([A-Za-z])\s*\}")
_CONJUNCTION: Final = re.compile(
    r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}\s*|(?<=[^\s,{]),?\s+(?:and|or)\s+(?=\S)|,\s*(?:and|or)\s+(?=\S)"
)

_COMPARED: Final = re.compile(r"[<>]|\\[lg](?:t|eq?(?:slant)?)(?![A-Za-z])")
_PERCENT: Final = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|per cent|%|\\%)\s*\}|(?<=\d)\s*per\s?cent(?![A-Za-z]))")
_DEGREE: Final = r"(?:\^\s*(?:\\(?:circ|degree)(?![A-Za-z])|\{\s*\\(?:circ|degree)\s*\})|\\degree(?![A-Za-z]))"
_DEGREE_IN_TEXT: Final = re.compile(rf"\\text\s*\{{\s*({_DEGREE}\s*[CFK]?)\s*\}}")
_DEGREE_OF_SCALE: Final = re.compile(rf"\s*{_DEGREE}\s*(?:\\text\s*\{{\s*)?(?:C(?:elsius)?|F(?:ahrenheit)?|K)(?![A-Za-z])\s*\}}?")
_DEGREES: Final = re.compile(rf"\s*{_DEGREE}(?!\s*[\d'])")
_ANGLE: Final = re.compile(rf"(\d+(?:\.\d+)?)\s*{_DEGREE}", re.ASCII)
_TRIGONOMETRY: Final = re.compile(r"\\(?:sin|cos|tan|sec|csc|cot)(?![A-Za-z])")
_CURRENCY: Final = re.compile(
    r"[€£₹¥₩₽₺₫₱₦฿₴₪₡¢]|\\(?:pounds|textsterling|euro|texteuro|EUR|yen|textyen|rupee|textrupee|cent|textcent)(?![A-Za-z])\s*"
    r"|(?<![A-Za-z\\])(?:\\text\s*\{\s*)?(?:USD|EUR|GBP|INR|JPY|CNY|RMB|CAD|AUD|CHF|SEK|NOK|DKK|PLN|BRL|MXN|SGD|HKD|NZD|KRW|(?:Rs|kr)\b\.?)\s*\}?\s*(?=[-+]?\.?\d)"
)
_TIME: Final = re.compile(r"(\d{1,2}(?::\d\d)?)\s*(?:\\text\s*\{\s*)?([AaPp])\.?\s?[Mm]\b\.?\s*\}?", re.ASCII)
_MODULUS: Final = re.compile(
    r"\s*(?:(?:\\pmod(?![A-Za-z])|\(\s*(?:\\bmod|\\mod|\\text\s*\{\s*mod\s*\}|mod)(?![A-Za-z])|(?<=\d)\s*(?:\\bmod|\\mod)(?![A-Za-z])|(?<=\d)\s+mod\s"
    r"|(?<=\d)\s*\\text\s*\{\s*mod\s*\})\s*[^()=]*\)?|(?<=\d)\s*\\text\s*\{\s*\(mod\s*\}\s*\d+\s*\))"
)

_ORDINAL: Final = re.compile(r"(?<=\d)\s*(?:\^\s*\{?\s*)?\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?$", re.ASCII)
_OHM: Final = r"\\text\s*\{\s*[kM]\s*\}\s*\\Omega(?![A-Za-z])"
_TEXT: Final = r"\\text\s*\{[^{}]*\}"
_TOKEN: Final = rf"(?:{_OHM}|{_TEXT}|\\(?:Omega|AA|mu)(?![A-Za-z])|\\[dtc]?frac\s*\{{\s*{_TEXT}\s*\}}\s*\{{\s*{_TEXT}\s*\}})"
_EXPONENT: Final = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_JOINT: Final = r"(?:\s*(?:\\cdot|\\times|/))?\s*"
_END: Final = r"(?=\s*(?:[,)\]=]|\\\}|$))"
_MARKED_UNIT: Final = re.compile(rf"(?<=[\d}})%A-Za-z])(?>\s*{_TOKEN}{_EXPONENT}(?:{_JOINT}{_TOKEN}{_EXPONENT})*){_END}", re.ASCII)
_PLAIN_UNIT: Final = re.compile(rf"(?<=[\d}})%])(\s*)([^\W\d_][^\d\\{{}}$=<>+*^|,()]*){_EXPONENT}$")
_NOUN: Final = re.compile(r"[^\W\d_]+")
_NO_WORDS: Final = re.compile(r"[=<>+*|&]|(?<![A-Za-z^])(?<!\^-)\d|\d{2}")
_RAISED_IN_TEXT: Final = re.compile(r"(\\text\s*\{[^{}]*)\^\s*\{(-?\d)\}", re.ASCII)
_BRACKETED_UNIT: Final = re.compile(r"(?<=\d)\s*(?:\(|\[)\s*(?:\\text\s*\{)?\s*([A-Za-z]{2,}\.?)\s*\}?\s*(?:\)|\])$", re.ASCII)
_PER_UNIT: Final = re.compile(r"(?<=\d)\s*/\s*(?:\\text\s*\{\s*([A-Za-z]+)\s*\}|([A-Za-z]{2,}))$", re.ASCII)
_SCIENCE: Final = r"(?:\\mu\s*)?[A-Za-z]{1,4}(?:\^\{?-?\d\}?)?"
_SCIENCE_UNIT: Final = re.compile(rf"(?<=\d)\s*({_SCIENCE}(?:\s*(?:\\cdot|/|\*)\s*{_SCIENCE})*)$", re.ASCII)
_VARIABLE: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")

_UNIT_WORDS: Final = """
    degree degrees deg radian radians rad cent cents dollar dollars usd euro euros eur pound pounds gbp inr unit units square sq cubic cu
    mm cm dm m km nm meter meters metre metres centimeter centimeters kilometer kilometers mile miles mi inch inches in foot feet ft yard
    yards yd second seconds sec secs s minute minutes min mins hour hours hr hrs day days week weeks month months year years yr yrs
    gram grams g kg mg kilogram kilograms ounce ounces oz lb lbs ton tons liter liters litre litres ml cl dl gallon gallons gal cup cups
    mph kph kmh rpm hz khz mhz ghz kw mw kwh kj cal kcal mol pa kpa atm bar psi ev kn hp db men pcs pts per
    chf kr ppm ppb yen won gb mb tb kb bps ha
    people students apples ways points times integers solutions
"""
_UNITS: Final[frozenset[str]] = frozenset(_UNIT_WORDS.split())
_LETTERS: Final[frozenset[str]] = frozenset("msghdlLJNWVACFKTt")
_AMBIGUOUS: Final = "m s g in mi mg mw pa cal bar cu rad sq min sec ev kn hp db men per day cup ton gal gb mb tb kb ha won kr"
_JOINED: Final[frozenset[str]] = _UNITS - frozenset(_AMBIGUOUS.split())
_VALUES: Final = """
    and or nor not no none never if is are be was were when where unless because since so then otherwise for both either except but
    more less fewer least most than between above below under beyond negative positive plus minus divided over to choose factorial
    mod modulo remainder base binary octal hexadecimal half percent percentage hundred hundreds thousand thousands million millions
    billion billions trillion trillions dozen dozens lakh crore bn mn tn pi infinity infinite sin cos tan csc cot log ln exp sqrt
    lim gcd lcm max am pm noon midnight bc ad bce ce i e
"""
_VALUE_WORDS: Final[frozenset[str]] = frozenset(_VALUES.split())
_CONNECTED: Final = """
    if is are be was were when where because since so then for both either but i e between
"""
_CONNECTIVES: Final[frozenset[str]] = frozenset(_CONNECTED.split())
_BRACKETED: Final[frozenset[str]] = _UNITS | {"approx", "approx.", "approximately"}
_FRACTIONS: Final = """
    squared cubed root th halves third thirds fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth tenth tenths hundredths
"""
_VALUE_FIRST: Final[frozenset[str]] = frozenset(_FRACTIONS.split())


def read_words(text: str) -> str:
    r"""Take an answer that is one ``\text`` out of it, replace "and" and "or" by commas, and write a time of day as ``4:30pm``."""
    text = _TIME.sub(lambda time: f"{time[1]}{'' if ':' in time[1] else ':00'}{time[2].lower()}m", text) if _is_time(text) else text
    text = _TEXT_OF_NUMBER.sub(r"\1\\text{\2}", text)
    whole = _WHOLE_TEXT.fullmatch(text)
    if whole:
        return whole[1].strip()
    if _COMPARED.search(text):
        return _CONJUNCTION.sub(lambda word: r" \lor " if "or" in word[0] else r" \land ", text)
    return _CONJUNCTION.sub(", ", text)


def without_units(text: str, *, any_word: bool = False) -> str:
    """The value without unit, currency, counted noun, degree sign or modulus, and with one spelling of the percent sign.

    ``any_word``: the answer must be a number, so a letter after it, as in ``5 m``, is a unit and not a variable.
    """
    text = _PERCENT.sub("%", _CURRENCY.sub("", _MODULUS.sub("", text)))
    text = _ANGLE.sub(r"\\frac{\1\\pi}{180}", text) if _TRIGONOMETRY.search(text) else _without_degrees(text)
    text = _BRACKETED_UNIT.sub(lambda unit: "" if unit[1].casefold() in _BRACKETED else unit[0], _RAISED_IN_TEXT.sub(r"\1^\2", text))
    text = _PER_UNIT.sub(lambda unit: "" if unit[1] or unit[2].casefold() in _UNITS else unit[0], text)
    if any_word:
        text = _SCIENCE_UNIT.sub(lambda unit: "" if _is_science(unit[1]) else unit[0], text)
    text = _MARKED_UNIT.sub(_without_marked, _ORDINAL.sub("", text))
    text = _PLAIN_UNIT.sub(lambda unit: "" if _is_plain_unit(unit[1], unit[2], any_word) else unit[0], text)
    return _ONE_LETTER.sub(r"\1", text)


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text.strip()) is not None


def _without_degrees(text: str) -> str:
    return _DEGREES.sub("", _DEGREE_OF_SCALE.sub("", _DEGREE_IN_TEXT.sub(r"\1", text)))


def _without_marked(unit: re.Match[str]) -> str:
    r""" "" if every ``\text`` of the match is a unit, else the match. After a variable, as in ``x\text{ odd}``, only known units count."""
    words = _WHOLE_TEXT.findall(re.sub(_OHM, "", unit[0]))
    value = re.split(r"[,=]", unit.string[: unit.start()])[-1]
    known_only = _VARIABLE.search(_WHOLE_TEXT.sub("", value)) is not None
    return "" if all(_is_marked_unit(word, known_only) for word in words) else unit[0]


def _is_marked_unit(words: str, known_only: bool) -> bool:
    nouns = _NOUN.findall(words)
    if not nouns:
        return not words.strip(" .,")
    if _NO_WORDS.search(words) or _has_value(nouns):
        return False
    if known_only:
        return all(noun.casefold() in _UNITS for noun in nouns)
    return all(len(noun) > 1 or noun in _LETTERS or not noun.isascii() for noun in nouns) or any(len(noun) > 2 for noun in nouns)


def _is_plain_unit(space: str, words: str, any_word: bool) -> bool:
    r"""Whether words outside of ``\text`` are a unit: known units, nouns after a space, or one letter if the answer must be a number."""
    nouns = _NOUN.findall(words)
    if _has_value(nouns):
        return False
    known = all(noun.casefold() in _UNITS for noun in nouns)
    letters = len(nouns) == 1 and len(nouns[0]) == 1
    if not nouns[0].isascii():
        return all(unicodedata.category(letter) != "Lm" for letter in nouns[0])
    if letters:
        return any_word and bool(space) and nouns[0] in _LETTERS
    if not space:
        return any_word or (known and nouns[0].casefold() in _JOINED)
    return any_word or known or any(map(_is_noun, nouns)) or nouns[0].casefold() in _UNITS


def _is_science(unit: str) -> bool:
    """Whether the text is a product or power of known units, as ``kg\\cdot m/s^{2}``."""
    nouns = re.findall(r"(?<!\\)\b[A-Za-z]+", unit.replace("\\cdot", " ").replace("\\mu", ""))
    return not unit.isalpha() and all(noun.casefold() in _UNITS or noun in _LETTERS for noun in nouns)


def changes_value(words: str) -> bool:
    """Whether words after a number change its value, as in "2 dozen" or "5 or more"."""
    folded = [noun.casefold() for noun in _NOUN.findall(words)]
    return not (_VALUE_WORDS - _CONNECTIVES).isdisjoint(folded) or (bool(folded) and folded[0] in _VALUE_FIRST - {"th"})


def _is_noun(word: str) -> bool:
    """Whether a word is no product of variables: it has four or more letters with a vowel after the first, or ends in s, as "eggs"."""
    return re.fullmatch("[A-Za-z]+[aeiouAEIOU][A-Za-z]*(?<=....)|[A-Za-z]{2}s|[aeiou][A-Za-z]+s", word) is not None


def _has_value(nouns: list[str]) -> bool:
    folded = [noun.casefold() for noun in nouns]
    return not _VALUE_WORDS.isdisjoint(folded) or (bool(folded) and folded[0] in _VALUE_FIRST)
