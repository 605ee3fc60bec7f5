"""Replaces mathematical characters by LaTeX, so that all later steps can assume ASCII."""

from __future__ import annotations

import re
from typing import Final

_CHARACTERS: Final[dict[str, str]] = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "－": "-", "＋": "+", "＝": "=", "％": "%",
    "，": ",", "、": ",", "．": ".", "。": ". ", "：": ":", "；": ";", "！": "!", "？": "?", "＊": "*", "∗": "*", "＜": "<", "＞": ">",
    "（": "(", "）": ")", "［": "[", "］": "]", "【": "[", "】": "]", "｛": "{", "｝": "}",
    "∶": ":", "／": "/", "⁄": "/", "∕": "/", "＄": "$", "＾": "^",
    "＿": "_", "×": r"\times ", "✕": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "±": r"\pm ", "∓": r"\mp ",
    "∞": r"\infty ", "√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "≅": r"\cong ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ",
    "∅": r"\emptyset ", "⌀": r"\emptyset ", "∖": r"\setminus ", "∣": r"\mid ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "∠": r"\angle ", "△": r"\triangle ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "→": r"\to ", "⇒": r"\Rightarrow ", "∴": r"\therefore ", "∧": r"\land ", "∨": r"\lor ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "°": r"^\circ ", "º": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F", "Ω": r"\Omega ",
    "\u2126": r"\Omega ", "µ": r"\mu ", "Δ": r"\Delta ",
    "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "「": '"', "」": '"', "″": "''",
    "⟨": "(", "⟩": ")", "〈": "(", "〉": ")",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}",
    "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅐": r"\frac{1}{7}",
    "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "⅑": r"\frac{1}{9}", "⅒": r"\frac{1}{10}",
}  # fmt: skip
_GREEK: Final = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi . pi rho . sigma tau upsilon phi chi psi omega"
_BLANKS: Final = "\u00a0\u2002\u2003\u2007\u3000\t\x0b\x0c"
_THIN_SPACES: Final = "\u2009\u202f"
_INVISIBLE: Final = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\ufe0e\ufe0f"
_CONTROL: Final = "".join(chr(i) for i in (*range(9), *range(14, 32), 127))
_CONTROL_CHARACTER: Final = re.compile(f"[{re.escape(_CONTROL)}\t\x0b\x0c]")
_RAISED: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣʸᵃᵇᶜᵈᵉᵏᵐᵖᵗ"
_LOWERED: Final = "₀₁₂₃₄₅₆₇₈₉₊₋ₙ"
_BASELINE: Final = "0123456789+-n"
_RAISED_LETTERS: Final = "ixyabcdekmpt"
_RAISED_RUN: Final = re.compile(f"[{_RAISED}]+")
_LOWERED_RUN: Final = re.compile(f"[{_LOWERED}]+")
_LEVEL: Final = str.maketrans(_RAISED + _LOWERED, _BASELINE + _RAISED_LETTERS + _BASELINE)
_BARRED: Final = re.compile(r"(?:\d[\u0304\u0305])+", re.ASCII)
_ROOT: Final = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?)", re.ASCII)
_DOTTED: Final = re.compile(r"(\d)\u0307", re.ASCII)

UNREADABLE: Final = "\ufffd"
"""Replaces a character without meaning. If NUL were just removed, "4", NUL, "2" would become 42."""

_SPELLINGS: Final[dict[int, str]] = (
    {ord("α") + i: f"\\{name} " for i, name in enumerate(_GREEK.split()) if name != "."}
    | {ord(k): v for k, v in _CHARACTERS.items()}
    | {ord(c): " " for c in _BLANKS}
    | {ord(c): r"\," for c in _THIN_SPACES}
    | {ord(c): "" for c in _INVISIBLE}
    | dict.fromkeys((*map(ord, _CONTROL), *range(0xD800, 0xE000)), UNREADABLE)
    | {ord("０") + digit: str(digit) for digit in range(10)}
    | {ord(wide) + i: chr(ord(narrow) + i) for wide, narrow in ("ＡA", "ａa") for i in range(26)}
)


def spell(text: str) -> str:
    """The text with each character in one spelling; control characters and lone surrogates become `UNREADABLE`.

    Successive superscripts become one exponent (``10⁻³`` is ``10^{-3}``), successive subscripts one index. A line or a dot over a digit
    becomes ``\\overline`` or ``\\dot``.
    """
    if text.isascii():
        return text.translate(_SPELLINGS) if _CONTROL_CHARACTER.search(text) else text
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_LEVEL)}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(_LEVEL)}}}", text)
    text = _ROOT.sub(r"\1{\2}", text)
    text = _BARRED.sub(lambda run: f"\\overline{{{run[0][::2]}}}", text)
    return _DOTTED.sub(r"\\dot{\1}", text).translate(_SPELLINGS)
