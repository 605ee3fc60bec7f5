"""Published methods as named sets of settings: ``--preset scrl``. A preset is a base: a file's settings and flags win over it.

To add one, give it a line in `PRESETS`, with its source, and add its name to `PresetName`. It sets nothing that depends on the model or the
data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sttrl.errors import UsageError

PresetName = Literal["ttrl", "scrl", "ddrl", "scope", "spine", "ettrl", "restrain", "guard", "self_harmony", "slot"]
METHOD_SETTINGS: Final = (
    "adaptation_method", "voting_function", "votes_until", "reward", "train_samples", "adv_estimator", "advantage_shaping", "rollouts",
    "question_views", "forking_tokens", "guard",
)  # fmt: skip
"""The settings that make a method: two runs that differ in one of them are of different methods."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named set of settings. ``what``: what it is, in one line. ``source``: the paper, and where its values are published."""

    what: str
    source: str
    settings: Mapping[str, Any]

    def check(self, name: str, kept: Mapping[str, Any], default: Mapping[str, Any]) -> None:
        """Raises `UsageError` if the run no longer is the preset's method, because a setting that makes it has no effect.

        ``name``: the preset's. ``kept``: the settings of the run that have an effect. ``default``: the default of every setting. With
        ``--adaptation_method none`` the base is evaluated, and what is left of the preset is kept without an error.
        """
        method = kept.get("adaptation_method")
        for lost in METHOD_SETTINGS:
            if lost not in kept and self.settings.get(lost, default[lost]) != default[lost] and method != "none":
                value = self.settings[lost]
                words = " ".join(value) if isinstance(value, tuple) else value
                raise UsageError(
                    f"--preset {name} is made by --{lost} {words}, which does nothing beside the other settings that were given.",
                    f"Leave out --preset {name}, or what was given beside it.",
                )


_TTRL: Final[dict[str, Any]] = {
    "adaptation_method": "ttrl", "voting_function": "majority", "ties": "first", "reward": "agreement",
    "n_votes": 64, "n_train": 32, "top_p": 1.0, "max_response_tokens": 3072,
    "lora_rank": 0, "lr_schedule": "cosine", "warmup_ratio": 0.03, "weight_decay": 0.01,
    "adv_estimator": "grpo", "policy_loss": "vanilla", "loss_aggregation": "token-mean", "clip_low": 0.2, "clip_high": 0.2,
    "kl_coef": 0.001, "ppo_epochs": 1,
    "val_samples": 16, "val_temp": 0.6, "val_top_p": 0.95, "eval_every": 2,
}  # fmt: skip
"""TTRL's scripts. Unset, so that they follow the data set and the kind of delta: batch and epochs (`TTRL_BATCHES`), an optimiser step for
each question of the batch, and the learning rate, 5e-7 with full weights."""

PRESETS: Final[dict[PresetName, Preset]] = {
    "ttrl": Preset(
        what="one policy, trained on all questions and rewarded by its own majority vote",
        source="TTRL, arXiv 2504.16084; scripts of PRIME-RL/TTRL. They have --temp 1.0 for Qwen2.5-Math and 0.6 for other models.",
        settings=_TTRL,
    ),
    "scrl": Preset(
        what="TTRL that rewards only a clear majority and punishes rare, unsure answers",
        source="SCRL, arXiv 2603.19880: its thresholds and dynamic reward; script of Jasper-Yan/SCRL (an evaluation every 20 steps).",
        settings={**_TTRL, "reward": "scrl", "scrl_form": "shaped", "eval_every": 20},
    ),
    "ddrl": Preset(
        what="TTRL on winners up to half and the rarest answers, with advantages of 1 and -1",
        source="DDRL, arXiv 2604.21327, without its fine-tuning after the training; scripts of yuyongcan/DDRL.",
        settings={**_TTRL, "train_samples": "balanced", "adv_estimator": "dae"},
    ),
    "scope": Preset(
        what="TTRL with a label for each subgroup of the samples, elected by the confidence of reasoning steps",
        source="SCOPE, arXiv 2512.15146; scripts of szu-tera/SCOPE (AIME: --epochs 200; an evaluation in every step).",
        settings={
            **_TTRL,
            "voting_function": "confidence",
            "confidence": "step_mean",
            "reward": "scope",
            "scope_quality": 0.7,
            "scope_votes": 32,
            "n_train": 64,
            "eval_every": 1,
        },
    ),
    "spine": Preset(
        what="TTRL that updates only forking tokens, of high entropy, and holds their entropy in a band",
        source="SPINE, arXiv 2511.17938, second version: 8 samples, Otsu's threshold, the band. The rest is TTRL's or derived.",
        settings={**_TTRL, "n_votes": 8, "n_train": 8, "forking_tokens": "otsu", "entropy_band": "mad"},
    ),
    "ettrl": Preset(
        what="TTRL on trees of responses that fork at high entropy, with advantages scaled by relative entropy",
        source="ETTRL, arXiv 2508.11356: 12 trees of 5 responses, and its reshaping. The rest is TTRL's.",
        settings={
            **_TTRL,
            "rollouts": "tree",
            "fork_points": 2,
            "fork_branches": 2,
            "n_votes": 60,
            "advantage_shaping": "relative_entropy",
        },
    ),
    "restrain": Preset(
        what="TTRL with every answer as a pseudo-label, weighed by its share; unsure questions are punished",
        source="RESTRAIN, arXiv 2510.02172: its formulas. Its values could not be read: widths, threshold and offset are derived.",
        settings={**_TTRL, "reward": "restrain", "adv_estimator": "reinforce"},
    ),
    "guard": Preset(
        what="TTRL that is careful with questions whose elected answer changes or has changed",
        source="TTRL-Guard, arXiv 2605.19444; scripts of linhxkkkk/TTRL-Guard for Qwen2.5-7B; other models: without frs.",
        settings={**_TTRL, "guard": ("frs", "mps", "rcsu"), "guard_share": 0.5, "val_samples": 4, "eval_every": 5},
    ),
    "self_harmony": Preset(
        what="TTRL whose vote is the harmonic mean over the question and a paraphrase that the base writes",
        source="Self-Harmony, arXiv 2511.01191, whose training of the paraphrases is left out; other values: TTRL (derived).",
        settings={**_TTRL, "voting_function": "harmony", "question_views": 2, "question_view_form": "paraphrases"},
    ),
    "slot": Preset(
        what="a vector on the last hidden state, tuned on each prompt",
        source="SLOT, arXiv 2505.12392; README of maple-research-lab/SLOT.",
        settings={"adaptation_method": "slot", "steps": 5, "lr": 0.1, "lr_schedule": "constant", "weight_decay": 1e-8},
    ),
}
"""The presets by name."""
