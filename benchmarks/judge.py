"""The judge: a group of 64 answers with 10 distinct forms, in worker processes that run already.

    python benchmarks/judge.py [--save]

The peer is math-verify in this process, without clocks or limits: every answer against one of every class so far, in both
directions. Every repetition has numbers of its own, so that nothing is known from an earlier one.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence

from table import show, typical

ANSWERS, FORMS = 64, 10
KINDS: dict[str, Callable[[int, int], str]] = {
    "integers": lambda i, n: str(1000 * n + i),
    "fractions and roots": lambda i, n: rf"\frac{{{2 * n + 1}\sqrt{{{2 + i}}}}}{{{2 * n + 3}}}",
    "polynomials": lambda i, n: f"x^2+{n}x+{i + 1}",
    "intervals": lambda i, n: f"[{i},{n + 20})",
    "formulas in two letters": lambda i, n: f"{n}x-{i + 2}y",
}
"""The i-th form of the n-th repetition."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    from sttrl.questions.answers import Judge

    judge, rows = Judge(), list[list[str]]()
    try:
        for kind, form in KINDS.items():
            groups = (group(form, n) for n in itertools.count(1))
            ours = typical(lambda groups=groups: check(judge, next(groups)), 9)  # type: ignore[misc]
            peers = (group(form, n) for n in itertools.count(1001))
            peer = typical(lambda peers=peers: plain(next(peers)), 3)  # type: ignore[misc]
            rows.append([kind, f"{1000 * ours:.0f} ms", f"{1000 * peer:.0f} ms", f"{peer / ours:.1f}x"])
    finally:
        judge.close_sync()
    notes = f"{ANSWERS} answers, {FORMS} distinct forms; median of 9 groups (the peer: 3) after one that does not count."
    show("Judge", ["forms", "ours", "math-verify, plain", "ratio"], rows, notes, given.save)


def group(form: Callable[[int, int], str], n: int) -> list[str]:
    """The n-th group of responses."""
    return [rf"Therefore the answer is \boxed{{{form(i % FORMS, n)}}}." for i in range(ANSWERS)]


def check(judge: object, texts: Sequence[str]) -> None:
    """One group through our judge, which must find the classes."""
    ballots = judge.ballots_sync("math", [(text, "stop") for text in texts])  # type: ignore[attr-defined]
    assert len(ballots.representative_C) == FORMS, ballots


def plain(texts: Sequence[str]) -> None:
    """One group through math-verify alone."""
    from math_verify import parse, verify

    classes: list[object] = []
    for text in texts:
        parsed = parse(text)
        if not any(verify(parsed, one) and verify(one, parsed) for one in classes):
            classes.append(parsed)
    assert len(classes) == FORMS, classes


if __name__ == "__main__":
    main()
