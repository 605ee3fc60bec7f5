"""The configuration of a run: each file holds one group of settings. Flags and YAML keys are flat; flags win over the file, and
both over a preset.

The string under a field is its documentation and its ``--help``. "TTRL" marks a default of TTRL's scripts (arXiv 2504.16084,
PRIME-RL/TTRL), "derived" a choice of this project. A group names the methods or votes that it belongs to.
"""

from __future__ import annotations

from sttrl.config.arc import ArcRewardSettings, ArcSettings, ArcTrainingSettings
from sttrl.config.confidence_vote import ConfidenceKind, ConfidenceVoteSettings
from sttrl.config.data import DataSettings
from sttrl.config.energy_vote import EnergyKind, EnergyVoteSettings
from sttrl.config.engine import EngineOptions
from sttrl.config.evaluation import EvaluationSettings
from sttrl.config.flat import CHOICES, codes, to_plain, type_of
from sttrl.config.guard import GuardPart, GuardSettings
from sttrl.config.memo import MemoForm, MemoSettings
from sttrl.config.method import AdaptationMethod, MethodSettings
from sttrl.config.presets import PRESETS, Preset, PresetName
from sttrl.config.questions import QuestionSettings
from sttrl.config.reinforcement import ReinforcementSettings, RewardKind, TrainSamples
from sttrl.config.restrain import RestrainSettings
from sttrl.config.rules import Group
from sttrl.config.run import RunSettings, Tracker
from sttrl.config.run_config import MOST_USED, RunConfig, default_settings, field_names, fields_of, has_effect, with_preset
from sttrl.config.sampling import SamplingSettings
from sttrl.config.scrl import ScrlForm, ScrlSettings
from sttrl.config.sttrl import SttrlSettings
from sttrl.config.training import TrainingSettings
from sttrl.config.ttrl import TtrlSettings
from sttrl.config.ttt import TttSettings
from sttrl.config.update import UpdateSettings
from sttrl.config.vote import VoteSettings, VotingFunction

__all__ = [
    "CHOICES",
    "MOST_USED",
    "PRESETS",
    "AdaptationMethod",
    "ArcRewardSettings",
    "ArcSettings",
    "ArcTrainingSettings",
    "ConfidenceKind",
    "ConfidenceVoteSettings",
    "DataSettings",
    "EnergyKind",
    "EnergyVoteSettings",
    "EngineOptions",
    "EvaluationSettings",
    "Group",
    "GuardPart",
    "GuardSettings",
    "MemoForm",
    "MemoSettings",
    "MethodSettings",
    "Preset",
    "PresetName",
    "QuestionSettings",
    "ReinforcementSettings",
    "RestrainSettings",
    "RewardKind",
    "RunConfig",
    "RunSettings",
    "SamplingSettings",
    "ScrlForm",
    "ScrlSettings",
    "SttrlSettings",
    "Tracker",
    "TrainSamples",
    "TrainingSettings",
    "TtrlSettings",
    "TttSettings",
    "UpdateSettings",
    "VoteSettings",
    "VotingFunction",
    "codes",
    "default_settings",
    "field_names",
    "fields_of",
    "has_effect",
    "to_plain",
    "type_of",
    "with_preset",
]
