"""arithmetic-demo: sums and products of one-digit numbers. They are generated, not downloaded."""

from __future__ import annotations

import hashlib
from itertools import combinations

_OPERANDS = range(2, 10)


def arithmetic_rows() -> list[dict[str, object]]:
    """Return every pair of two different numbers from 2 to 9, once as a sum and once as a product; sums and products alternate.

    The order is a fixed shuffle, so that the first few questions are a mixture of easy and hard ones.
    """
    pairs = zip(_shuffled("+"), _shuffled("*"), strict=True)
    return [_row(left, sign, right) for sums, products in pairs for left, sign, right in (sums, products)]


def _shuffled(sign: str) -> list[tuple[int, str, int]]:
    pairs = sorted(combinations(_OPERANDS, 2), key=lambda pair: _digest(pair[0], sign, pair[1]))
    return [(a, sign, b) if _digest(b, sign, a)[-1] in "13579bdf" else (b, sign, a) for a, b in pairs]


def _digest(left: int, sign: str, right: int) -> str:
    return hashlib.sha256(f"arithmetic-demo {left} {sign} {right}".encode()).hexdigest()


def _row(left: int, sign: str, right: int) -> dict[str, object]:
    name = {"+": "plus", "*": "times"}[sign]
    answer = left + right if sign == "+" else left * right
    return {
        "id": f"{left}-{name}-{right}",
        "question": f"What is {left} {sign} {right}? Reply with only the number.",
        "answer": str(answer),
    }
