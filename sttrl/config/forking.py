"""Which tokens carry the policy gradient, and the band that their entropy is held in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sttrl.config.reinforcement import OF_WHOLE_RESPONSES, REINFORCING
from sttrl.config.rules import NOT_NEGATIVE, POSITIVE_FRACTION, Group
from sttrl.errors import UsageError
from sttrl.types import EntropyBand, ForkRule


@dataclass(frozen=True, kw_only=True)
class ForkingSettings(Group):
    """The mask on forking tokens (SPINE, arXiv 2511.17938)."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        "forking_tokens": ("loss_aggregation", ("token-mean",)),
        "forking_share": ("forking_tokens", ("top",)),
        "entropy_band": ("forking_tokens", ("otsu", "top")),
        "entropy_low_coef": ("entropy_band", ("mad", "quantiles")),
        "entropy_high_coef": ("entropy_band", ("mad", "quantiles")),
    }

    forking_tokens: Literal["all"] | ForkRule = "all"
    """The tokens of a response that carry the policy gradient and the KL term: all, or those of high entropy, above Otsu's threshold
    (otsu) or the highest (top)."""
    forking_share: Annotated[float, POSITIVE_FRACTION] = 0.2
    """The share of a response's tokens that are forking with --forking_tokens top (SPINE: 0.2)."""
    entropy_band: Literal["none"] | EntropyBand = "none"
    """Hold the entropy of a response's forking tokens in a band around what it was before the update: from their median less one scaled
    median deviation to their median (mad), or from their 10 % quantile to their median (quantiles)."""
    entropy_low_coef: Annotated[float, NOT_NEGATIVE] = 0.01
    """The loss of a forking token for each nat that its entropy is below the band (derived)."""
    entropy_high_coef: Annotated[float, NOT_NEGATIVE] = 0.01
    """The loss of a forking token for each nat that its entropy is above the band (derived)."""

    def check(self, policy_loss: str) -> None:
        """Raises `UsageError` if single tokens are masked in a loss of whole responses."""
        if self.forking_tokens != "all" and policy_loss in OF_WHOLE_RESPONSES:
            raise UsageError(
                f"--forking_tokens {self.forking_tokens} with --policy_loss {policy_loss}: its loss is of whole responses.",
                "Leave it out, or use --policy_loss vanilla.",
            )
