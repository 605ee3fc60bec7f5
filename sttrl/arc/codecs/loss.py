"""Which tokens carry loss: rules over spans, so that no rule knows a tokenizer.

The weights say so token by token, so a padding token that is also the end mark takes no loss away from the end mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sttrl.arc.codecs.base import Span
from sttrl.arc.codecs.tokens import Encoded


@dataclass(frozen=True, kw_only=True)
class LossRule:
    """What is learnt. The answer always is; where there is no query, the last demonstration's output counts as the answer."""

    demo_outputs: bool = False
    """Also the demonstrations' outputs."""
    skip_first: int = 0
    """How many outputs, from the first, are left out all the same; the last output never is."""
    header: bool = False
    """Also what opens the model's turn in a chat."""
    everything: bool = False
    """Every token."""


RULES: Final[Mapping[str, LossRule]] = {
    "answer": LossRule(),
    "outputs": LossRule(demo_outputs=True),
    "outputs_but_first": LossRule(demo_outputs=True, skip_first=1),
    "marc": LossRule(demo_outputs=True, skip_first=1, header=True),
    "all": LossRule(everything=True),
}
"""Rules by name. ARChitects 2024 adapts with "outputs", Product of Experts (arXiv:2505.07859) with "outputs_but_first", and "marc" is
what test-time training for abstract reasoning (arXiv:2411.07279) learns."""


def loss_spans(spans: Sequence[Span], rule: LossRule) -> tuple[Span, ...]:
    """The spans that carry loss, in the order of the text, in characters or tokens as given. A rule for everything has no spans."""
    demo_outputs = [span for span in spans if span.kind == "demo_output"]
    learnt = [span for span in spans if span.kind == "answer" or (rule.demo_outputs and span.kind == "demo_output")]
    outputs = learnt or demo_outputs[-1:]
    kept = outputs[min(rule.skip_first, max(len(outputs) - 1, 0)) :]
    headers = [span for span in spans if span.kind == "header"] if rule.header else []
    return tuple(sorted([*kept, *headers], key=lambda span: span.start))


def weights(encoded: Encoded, rule: LossRule) -> tuple[float, ...]:
    """A weight a token, ``[T]``: 1 where the token is to be learnt, else 0."""
    if rule.everything:
        return (1.0,) * len(encoded.token_T)
    learnt = {place for span in loss_spans(encoded.spans, rule) for place in range(span.start, span.end)}
    return tuple(1.0 if place in learnt else 0.0 for place in range(len(encoded.token_T)))
