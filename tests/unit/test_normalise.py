"""The exact normal form."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from sttrl.questions.answers import Limits, normalise, read_label
from sttrl.types import AnswerKind

DATA = Path(os.environ.get("STTRL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "MATH-TTT.json").is_file(), reason="no benchmark data: set STTRL_DATA")


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("025", "25"),
        ("142.0", "142"),
        ("1,000", "1000"),
        ("1{,}000", "1000"),
        (r"10,\!080", "10080"),
        (r"10\,080", "10080"),
        ("x = 05", "x=5"),
        (r"x \in [-2,7]", r"x\in[-2,7]"),
        ("y = 2x + 3", "y=2x+3"),
        ("3, 200", "3, 200"),
        ("1,200, 300", "1200, 300"),
        ("0,500", "0,500"),
        ("12{\\,}345", "12345"),
        ("12 345", "12345"),
        ("100, 200 and 300", "100, 200, 300"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\frac 34", r"\frac{3}{4}"),
        (r"\frac9{19}", r"\frac{9}{19}"),
        ("-1/2", r"-\frac{1}{2}"),
        ("½", r"\frac{1}{2}"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("+7", "7"),
        ("-0.0", "0"),
        (".50", "0.5"),
        ("5.", "5"),
        ("5!", "5!"),
        ("$5$", "5"),
        (r"\(5\)", "5"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"106^\circ", "106"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
        (r"864 \mbox{ inches}^2", "864"),
        (r"\$18.90", "18.9"),
        (r"\text{(B)}", "B"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"4210_{5}", "4210_5"),
        ("3 million", "3000000"),
        (r"1\frac12 \text{ million dollars}", "1500000"),
        ("3 dozen", "3dozen"),
        (r"5 \text{ or more}", r"5\text{or more}"),
        (r"5 \text{ m}", "5"),
        (r"9.8\ \mathrm{m/s^2}", "9.8"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        ("0.1(6)", r"\frac{1}{6}"),
        (r"0.\dot{1}4285\dot{7}", r"\frac{1}{7}"),
        (r"3\times10^{-2}", "0.03"),
        (r"\textbf{(B)}\ 25", "25"),
        (r"\textcolor{red}{\mathbf{5}}", "5"),
        (r"x = 2\cdot 3 = 6", "x=6"),
        ("= 6", "6"),
        ("x=x", "x=x"),
        ("2**10", "2^10"),
        (r"x<2 \text{ or } x\ge4", r"(-\infty,2)\cup[4,\infty)"),
        (r"\{x \mid x>3\}", "x>3"),
        (r"\{\}", r"\emptyset"),
        (r"4\!:\!30 \text{ p.m.}", "4:30pm"),
        ("10⁻³", "10^{-3}"),
        ("(1,200)", "(1,200)"),
        ("5 m", "5m"),
        ("x=1, y=2", "x=1,y=2"),
        (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{pmatrix}1\\-2\end{pmatrix}"),
        ("−3", "-3"),
    ],
)
def test_normal_form(raw: str, form: str) -> None:
    assert normalise(raw) == form


def test_a_percentage_is_neither_the_ratio_nor_the_bare_number() -> None:
    forms = {normalise(raw) for raw in ("10 %", r"10\%", "10 percent", r"10 \text{ percent}")}
    assert forms == {"10%"}
    assert normalise("0.1") == "0.1" and normalise("10") == "10"


@pytest.mark.parametrize("raw", ["", "   ", "$$", "...", r"\frac{1}{2", "}{", "4\x002", "4\ud8002"])
def test_what_cannot_be_read_has_no_normal_form(raw: str) -> None:
    assert normalise(raw) is None


@pytest.mark.parametrize(
    ("raw", "form"), [("72 dollars per week", "72"), ("$1,234.50 total", "1234.5"), ("3 million", "3000000"), ("5 m", "5"), ("5x", "5x")]
)
def test_words_around_a_number(raw: str, form: str) -> None:
    assert normalise(raw, "number") == form


def labels(name: str) -> list[str]:
    if name.startswith("GSM8K"):
        return [json.loads(line)["answer"].rpartition("#### ")[2] for line in (DATA / name).read_text().splitlines()]
    text = gzip.decompress((DATA / name).read_bytes()).decode() if name.endswith(".gz") else (DATA / name).read_text()
    return [row["answer"] for row in json.loads(text)]


@needs_data
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AIME-TTT.json", "math"),
        ("AMC-TTT.json", "math"),
        ("MATH-TTT.json", "math"),
        ("GSM8K-TTT.jsonl", "number"),
        ("GPQA-TTT.json.gz", "choice"),
    ],
)
def test_every_real_label_has_a_normal_form_within_the_limits(name: str, kind: AnswerKind) -> None:
    for label in labels(name):
        form = read_label(label, kind, Limits()).text
        assert form is not None, label
        assert normalise(form, kind) == form


@needs_data
@pytest.mark.parametrize(("name", "kind"), [("AIME-TTT.json", "math"), ("AMC-TTT.json", "math"), ("GSM8K-TTT.jsonl", "number")])
def test_integer_labels_become_plain_integers(name: str, kind: AnswerKind) -> None:
    for label in labels(name):
        assert normalise(label, kind) == str(int(float(label.replace(",", ""))))
