"""How the policy adapts, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from sttrl.config.extensions import Choice
from sttrl.config.rules import POSITIVE_FRACTION, Group, at_least

AdaptationMethod = Literal["sttrl", "ttrl", "ttft", "slot", "memo", "ttt", "finetune", "stored", "none"]
METHOD = Choice(setting="adaptation_method", noun="method", group="sttrl.methods", ours=get_args(AdaptationMethod))


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Group):
    """How the policy adapts, and for how long."""

    adaptation_method: Annotated[AdaptationMethod | str, METHOD, METHOD.flag] = "sttrl"
    """sttrl: for each question vote, reward the samples, update by policy gradient. ttrl: the same over batches of all questions.
    ttft: fine-tune on the samples with the elected answer. slot: tune a vector on the prompt. memo: lower the entropy of the answers.
    ttt: train on a puzzle's demonstrations. finetune: train one policy on whole data sets of puzzles.
    stored: take the adapters that another run has kept. none: the base model alone. Or package.module:Name, a method of your own."""
    method_settings: tuple[str, ...] = ()
    """Settings of a method of your own, as name=value."""
    continuous: bool = False
    """Keep one policy for the whole run instead of a new one for every question."""
    steps: Annotated[int | None, at_least(0)] = None
    """Most steps for a question; unset: sttrl 5 and ttft 5 (derived), slot 5 and memo 1 (their READMEs), ttt and finetune as their rows
    make."""
    stop_agreement: Annotated[float, POSITIVE_FRACTION] = 1.0
    """Stop adapting once the elected answer has at least this fraction of all samples; 1.0: only when all samples agree."""
