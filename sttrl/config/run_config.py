"""`RunConfig`: all groups of settings, and the checks between groups."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro

from sttrl.config.arc import ArcRewardSettings, ArcSettings, ArcTextSettings, ArcTrainingSettings
from sttrl.config.confidence_vote import BY_STEP, ConfidenceVoteSettings
from sttrl.config.data import DataSettings
from sttrl.config.defaults import METHOD_DEFAULTS, TTRL_BATCHES, TTRL_OTHERWISE, MethodDefaults
from sttrl.config.energy_vote import EnergyVoteSettings
from sttrl.config.engine import EngineOptions
from sttrl.config.evaluation import EvaluationSettings
from sttrl.config.forking import ForkingSettings
from sttrl.config.guard import GuardSettings
from sttrl.config.memo import MemoSettings
from sttrl.config.method import MethodSettings
from sttrl.config.own_method import OwnMethod, own_method
from sttrl.config.presets import PRESETS, PresetName
from sttrl.config.question_views import QuestionViewSettings
from sttrl.config.questions import QuestionSettings
from sttrl.config.reinforcement import BINARY, REWARD, ReinforcementSettings
from sttrl.config.restrain import RestrainSettings
from sttrl.config.rules import Group, suits
from sttrl.config.run import RunSettings
from sttrl.config.sampling import SamplingSettings
from sttrl.config.scope import ScopeSettings
from sttrl.config.scrl import ScrlSettings
from sttrl.config.stored import StoredSettings
from sttrl.config.sttrl import SttrlSettings
from sttrl.config.training import TrainingSettings
from sttrl.config.tree import TreeSettings
from sttrl.config.ttrl import TtrlSettings
from sttrl.config.ttt import TttSettings
from sttrl.config.update import UpdateSettings
from sttrl.config.vote import ELECTING, VoteSettings
from sttrl.errors import UsageError
from sttrl.types import Sampling

MOST_USED = frozenset({
    "dataset", "model", "adaptation_method", "voting_function", "steps", "n_votes", "n_train", "temp", "lr", "lora_rank",
    "max_response_tokens", "limit", "parallel_problems", "output_dir", "config", "preset",
})  # fmt: skip
"""The settings that ``--help`` shows; ``--help_all`` shows the rest too."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Adapt a model to each question of a data set, without labels, and say what it gained."""

    data: DataSettings = DataSettings()
    questions: QuestionSettings = QuestionSettings()
    asking: QuestionViewSettings = QuestionViewSettings()
    method: MethodSettings = MethodSettings()
    sampling: SamplingSettings = SamplingSettings()
    tree: TreeSettings = TreeSettings()
    vote: VoteSettings = VoteSettings()
    energy_vote: EnergyVoteSettings = EnergyVoteSettings()
    confidence_vote: ConfidenceVoteSettings = ConfidenceVoteSettings()
    reinforcement: ReinforcementSettings = ReinforcementSettings()
    forking: ForkingSettings = ForkingSettings()
    scrl: ScrlSettings = ScrlSettings()
    scope_reward: ScopeSettings = ScopeSettings()
    restrain: RestrainSettings = RestrainSettings()
    ttrl_guard: GuardSettings = GuardSettings()
    sttrl: SttrlSettings = SttrlSettings()
    ttrl: TtrlSettings = TtrlSettings()
    ttt: TttSettings = TttSettings()
    training: TrainingSettings = TrainingSettings()
    arc_text: ArcTextSettings = ArcTextSettings()
    arc: ArcSettings = ArcSettings()
    arc_training: ArcTrainingSettings = ArcTrainingSettings()
    arc_reward: ArcRewardSettings = ArcRewardSettings()
    memo: MemoSettings = MemoSettings()
    stored: StoredSettings = StoredSettings()
    update: UpdateSettings = UpdateSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    engine: EngineOptions = EngineOptions()
    run: RunSettings = RunSettings()
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """A YAML file of these settings, or the name of one that comes with sttrl, such as demo."""
    preset: PresetName | None = None
    """Begin with the settings of a published method; `presets` lists them. The file of --config and flags win over it."""

    def __post_init__(self) -> None:
        _check_samples(self)
        _check_places(self)
        _check_bits(self)
        _check_rewards(self)
        _check_weights(self)
        _check_views(self)
        _check_used(self)
        ttrl = self.method.adaptation_method == "ttrl"
        self.ttrl_guard.check(*(("epochs", self.ttrl_epochs) if ttrl else ("steps", self.method_steps)))

    @classmethod
    def of(cls, **settings: Any) -> RunConfig:
        """The configuration with these flat settings, the others as ``preset`` has them, or at their defaults. Raises `UsageError`."""
        return cls().changed(**with_preset(settings))

    def changed(self, **settings: Any) -> RunConfig:
        """A copy with some flat settings changed. Raises `UsageError` for a bad value, KeyError for an unknown name."""
        by_group: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            by_group.setdefault(GROUP_OF[name], {})[name] = value
        own = by_group.pop("", {})
        groups = {group: dataclasses.replace(getattr(self, group), **values) for group, values in by_group.items()}
        return dataclasses.replace(self, **groups, **own)

    def setting(self, name: str) -> Any:
        """The value of a setting by its flat name."""
        group = GROUP_OF[name]
        return getattr(getattr(self, group) if group else self, name)

    @property
    def groups(self) -> dict[str, Group]:
        """The groups by name."""
        return {name: group for name, group in vars(self).items() if isinstance(group, Group)}

    @functools.cached_property
    def own_method(self) -> OwnMethod | None:
        """What a method of one's own says of itself; None for one of ours. Raises `UsageError`."""
        return own_method(self.method, [name for name, group in self.groups.items() if group.methods is not None])

    @property
    def method_defaults(self) -> MethodDefaults:
        """The defaults of the method."""
        return self.own_method.defaults if self.own_method is not None else METHOD_DEFAULTS[self.method.adaptation_method]

    @property
    def method_steps(self) -> int:
        """``steps``, or the method's default."""
        return self.method.steps if self.method.steps is not None else self.method_defaults.steps

    @property
    def learning_rate(self) -> float:
        """``lr``, or the default of the method and the kind of delta."""
        default = self.method_defaults
        if self.update.lr is not None:
            return self.update.lr
        if self.method.continuous and default.continuous_lr is not None:
            return default.continuous_lr
        return default.lora_lr if self.update.lora_rank else default.full_lr

    @property
    def embedding_rate(self) -> float:
        """``embedding_lr``, or the rate of everything else."""
        return self.learning_rate if self.update.embedding_lr is None else self.update.embedding_lr

    @property
    def optimiser(self) -> dict[str, Any]:
        """The settings of AdamW and its schedule, or the method's defaults, by the names of `sttrl.types.DeltaSpec`."""
        default = self.method_defaults
        names = {"schedule": "lr_schedule"} | {n: n for n in ("warmup_ratio", "lowest_lr", "weight_decay", "adam_betas")}
        given = {field: getattr(self.update, name) for field, name in names.items()}
        return {field: getattr(default, names[field]) if value is None else value for field, value in given.items()}

    @property
    def ttrl_batch_size(self) -> int:
        """Questions in a batch of ttrl."""
        return self.ttrl.train_batch_size or TTRL_BATCHES.get(self.data.dataset, TTRL_OTHERWISE)[0]

    @property
    def ttrl_epochs(self) -> int:
        """Passes of ttrl over the questions."""
        return self.ttrl.epochs or TTRL_BATCHES.get(self.data.dataset, TTRL_OTHERWISE)[1]

    @property
    def evaluate_every(self) -> int:
        """``eval_every``, or the method's default; 0: never during a training."""
        if self.training.eval_every is None:
            return 10 if self.method.adaptation_method == "ttrl" else 0
        return self.training.eval_every

    @property
    def steps_of_a_pass(self) -> int:
        """``mini_batches``, or the method's default."""
        return self.reinforcement.mini_batches or (self.ttrl_batch_size if self.method.adaptation_method == "ttrl" else 1)

    @property
    def sampling_of_votes(self) -> Sampling:
        """The sampling settings of votes."""
        chosen, longest = self.sampling, self.sampling.max_response_tokens
        by_step = self.vote.voting_function == "confidence" and self.confidence_vote.confidence in BY_STEP
        return Sampling(temperature=chosen.temp, top_p=chosen.top_p, max_tokens=longest, reasoning_steps=by_step)

    @property
    def sampling_of_evaluations(self) -> Sampling:
        """The sampling settings of evaluations."""
        chosen = self.evaluation
        return Sampling(temperature=chosen.val_temp, top_p=chosen.val_top_p, max_tokens=self.sampling.max_response_tokens)

    @property
    def trains_together(self) -> bool:
        """Whether one policy is trained on all problems before any of them is answered."""
        method = self.method.adaptation_method
        at_once = self.own_method is not None and self.own_method.at_once
        return at_once or method in ("ttrl", "finetune") or (method == "ttt" and self.ttt.scope == "dataset")

    @property
    def averages_views(self) -> bool:
        """Whether the method averages over the views of a question, instead of asking them."""
        return self.method.adaptation_method == "memo" and self.memo.memo_form == "token"

    @property
    def in_flight(self) -> int:
        """How many questions a lane works on at once: one if the order must be fixed."""
        return 1 if self.run.deterministic or self.method.continuous else self.run.parallel_problems


def fields_of(kind: type) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """(name of its group, field) of every setting, in the order of the command line; the name is "" for a setting in no group."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        group = hints[field.name]
        if isinstance(group, type) and issubclass(group, Group):
            yield from ((field.name, inner) for inner in dataclasses.fields(group))
        else:
            yield "", field


GROUP_OF: dict[str, str] = {field.name: group for group, field in fields_of(RunConfig)}
"""The name of each setting's group; "" for a setting in no group."""


@functools.cache
def field_names() -> tuple[str, ...]:
    """Every setting, in the order of the command line."""
    return tuple(GROUP_OF)


@functools.cache
def default_settings() -> Mapping[str, Any]:
    """The default of every setting, by its flat name."""
    plain = RunConfig()
    return MappingProxyType({name: plain.setting(name) for name in field_names()})


def has_effect(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the method and the vote of a run with these flat settings read the setting ``name``. Methods of others may read any."""
    group = getattr(RunConfig, GROUP_OF[name]) if GROUP_OF.get(name) else Group
    method = settings.get("adaptation_method")
    fits_method = group.methods is None or method in group.methods or method not in METHOD_DEFAULTS
    of_method = fits_method and method not in group.without
    other, values = group.needs.get(name, ("", ("",)))
    fits = not other or suits(settings.get(other), values)
    return fits and of_method and (group.votes is None or settings.get("voting_function") in group.votes)


def with_preset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings, and under them those of the ``preset`` that they name, as far as they have an effect. Raises `UsageError`."""
    name = settings.get("preset")
    if name is None:
        return dict(settings)
    if name not in PRESETS:
        raise UsageError(f"--preset is {name}.", f"Use {', '.join(PRESETS)}.")
    every, idle = {**PRESETS[name].settings, **settings}, {""}
    while idle:
        idle = {other for other in every if other not in settings and not has_effect(other, {**default_settings(), **every})}
        every = {other: value for other, value in every.items() if other not in idle}
    PRESETS[name].check(name, every, default_settings())
    return every


def _check_samples(config: RunConfig) -> None:
    """Every optimiser step needs a sample on every rank."""
    n_votes, n_train, ranks = config.sampling.n_votes, config.sampling.n_train, config.engine.learner_ranks
    if config.method.adaptation_method in config.sampling.without:
        return
    until, first = config.vote.votes_until, config.vote.votes_first
    if until is not None and n_votes <= first:
        raise UsageError(
            f"--votes_until {until} does nothing with --n_votes {n_votes}: the first round has --votes_first {first} samples.",
            "Leave it out, raise --n_votes, or lower --votes_first.",
        )
    config.tree.check(config.vote, n_votes, config.asking.question_views or 1)
    if n_train > n_votes:
        raise UsageError(f"--n_train {n_train} is more than --n_votes {n_votes}.", "Train on at most the samples that vote.")
    if ranks > n_train:
        raise UsageError(f"--learner_ranks {ranks} is more than --n_train {n_train}.", "Every rank needs a sample.")
    if config.method.adaptation_method != "ttrl" and config.steps_of_a_pass * ranks > n_train:
        raise UsageError(
            f"--mini_batches {config.reinforcement.mini_batches} is more than --n_train {n_train} samples make on {ranks} ranks.",
            "Every mini-batch needs a sample on every rank.",
        )


def _check_places(config: RunConfig) -> None:
    """Lanes, ranks, GPUs and workers must fit each other."""
    engine, run = config.engine, config.run
    if engine.separate_ref_gpu and config.update.lora_rank:
        raise UsageError(
            "--separate_ref_gpu with LoRA: the reference is the same model without its adapter.",
            "Leave the flag out, or train full weights with --lora_rank 0.",
        )
    if run.lanes > 1 and (config.method.continuous or config.trains_together):
        raise UsageError(f"--lanes {run.lanes} with one policy for all questions: it lives on one lane.", "Leave out --lanes.")
    if run.gpus_per_lane is not None and run.gpus_per_lane - engine.learner_ranks not in (0, 1):
        raise UsageError(
            f"--gpus_per_lane {run.gpus_per_lane} with --learner_ranks {engine.learner_ranks}.",
            "A lane has a GPU for each learner rank, and at most one more, for its sampler.",
        )


def _check_bits(config: RunConfig) -> None:
    """What bitsandbytes holds in fewer bits cannot be sharded, and is the base of an adapter."""
    for name, value, plain in (("base_dtype", config.engine.base_dtype, "same"), ("optimizer", config.update.optimizer, "adamw")):
        if value != plain and config.engine.learner_ranks > 1:
            raise UsageError(
                f"--{name} {value} with --learner_ranks {config.engine.learner_ranks}: it cannot be sharded.",
                f"Use --learner_ranks 1, or --{name} {plain}.",
            )
    if config.engine.base_dtype != "same" and config.update.lora_rank == 0:
        raise UsageError(
            f"--base_dtype {config.engine.base_dtype} with --lora_rank 0: all weights are trained, so there is no base.",
            "Use --lora_rank 16, or --base_dtype same.",
        )


def _check_rewards(config: RunConfig) -> None:
    """DDRL's estimator gives one advantage to rewards of 1 and one to rewards of 0; RESTRAIN's rewards are advantages already."""
    chosen = config.reinforcement
    if chosen.reward == "restrain" and chosen.adv_estimator != "reinforce":
        raise UsageError(
            f"--reward restrain with --adv_estimator {chosen.adv_estimator}: its rewards are advantages already.",
            "Use --adv_estimator reinforce, which takes them as they are.",
        )
    if chosen.adv_estimator == "dae" and chosen.reward in REWARD.ours and chosen.reward not in BINARY:
        raise UsageError(
            f"--adv_estimator dae with --reward {chosen.reward}: it takes rewards of 0 and 1.",
            f"Use --reward {' or '.join(sorted(BINARY))}, or another estimator.",
        )
    config.scope_reward.check(chosen.reward, config.vote.voting_function, config.sampling.n_votes)


def _check_weights(config: RunConfig) -> None:
    """Truncated importance sampling weighs by the ratio of old learner and sampler. A mask on tokens needs a loss of tokens."""
    if config.reinforcement.tis_cap is not None and config.reinforcement.policy_loss == "bypass_mode":
        raise UsageError(
            f"--tis_cap {config.reinforcement.tis_cap} does nothing with --policy_loss bypass_mode, whose old policy is the sampler.",
            "Leave it out, or use --policy_loss vanilla.",
        )
    config.forking.check(config.reinforcement.policy_loss)


def _check_views(config: RunConfig) -> None:
    """Every view needs a sample of each vote and of each evaluation."""
    method = config.method.adaptation_method
    votes = method in ELECTING or (method == "memo" and not config.averages_views) or config.own_method is not None
    counts = {"n_votes": config.sampling.n_votes} if votes else {}
    compared = config.vote.voting_function == "harmony"
    config.asking.check({**counts, "val_samples": config.evaluation.val_samples}, averaged=config.averages_views, compared=compared)


def _check_used(config: RunConfig) -> None:
    """A setting that would do nothing is an error, not silence."""
    method, vote = config.method.adaptation_method, config.vote.voting_function
    own = config.own_method
    for place, group in config.groups.items():
        for name, value in group.not_default().items():
            reads = group.methods is None or method in group.methods or (own is not None and place in own.reads)
            if group.methods is not None and not reads:
                raise UsageError(
                    f"--{name} {value} does nothing with --adaptation_method {method}.",
                    f"It belongs to {', '.join(sorted(group.methods))}: leave it out, or choose one of them.",
                )
            if method in group.without:
                raise UsageError(f"--{name} {value} does nothing with --adaptation_method {method}.", "Leave it out.")
            if group.votes is not None and vote not in group.votes:
                raise UsageError(
                    f"--{name} {value} does nothing with --voting_function {vote}.",
                    f"Leave it out, or use --voting_function {' or '.join(sorted(group.votes))}.",
                )
            other, values = group.needs.get(name, ("", ()))
            if other and not suits(config.setting(other), values):
                given = config.setting(other)
                words = " ".join(given) if isinstance(given, tuple) else given
                chosen = f"without --{other}" if given in (None, ()) else f"with --{other} {words}"
                raise UsageError(
                    f"--{name} {value} does nothing {chosen}.",
                    f"Leave it out, or use --{other} {' or '.join(map(str, values))}".rstrip() + ".",
                )
    if method == "stored" and config.stored.adapters is None:
        raise UsageError("--adaptation_method stored needs adapters.", "Name a run folder, or a folder of adapters, with --adapters.")
    if config.sttrl.kl_budget is not None and not config.update.kl_coef:
        raise UsageError("--kl_budget with --kl_coef 0: the KL divergence is not measured then.", "Use a small --kl_coef, such as 1e-6.")
    if config.trains_together and config.method.continuous:
        raise UsageError(
            f"--continuous does nothing with --adaptation_method {method}, whose one policy sees all questions.", "Leave it out."
        )
