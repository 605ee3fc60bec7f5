"""ARC tasks: how they are written, searched, scored and chosen from, and what is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from sttrl.config.extensions import Choice
from sttrl.config.rules import ABOVE_ZERO, FRACTION, NOT_NEGATIVE, OPTIONAL_COUNT, POSITIVE_FRACTION, Group, Rule, at_least
from sttrl.errors import UsageError

CodecName = Literal[
    "auto", "cells", "cells_16", "cells_kaggle", "dialogue", "numpy", "numpy_plain", "numpy_diff", "words", "words_dated", "chat"
]  # fmt: skip
SearchName = Literal["threshold", "greedy", "sample", "beam"]
SelectionName = Literal[
    "first", "majority", "max_gen_prob", "max_aug_prob", "min_aug_prob", "sum_aug_prob", "mul_aug_prob", "mul_aug_prob_3", "mul_all_prob",
    "full_probmul_3", "kgmon", "probsum", "probsum_likeliest_shape", "marc",
]  # fmt: skip
WITHOUT_EXPERTS = frozenset({"first", "majority", "max_gen_prob", "probsum", "probsum_likeliest_shape", "marc"})
"""The selections that read what the search found alone; the others need ``--score_views``."""
CODEC = Choice(setting="codec", noun="codec", group="sttrl.codecs", ours=get_args(CodecName))
SELECTION = Choice(setting="selection", noun="selection", group="sttrl.selections", ours=get_args(SelectionName))
Colours = Literal["keep_background", "any", "no"]
PAIRS = Rule(lambda value: bool(value) and min(value) >= 2, "Use numbers of 2 or more.")
FINETUNE = ("adaptation_method", ("finetune",))
HELD_OUT = ("reward", ("demonstrations", "demonstrations_random"))
REWARD_PARTS = ("format", "shape", "cells", "exact")
PART = Rule(lambda value: 1 <= value[0] <= value[1], "Give its number and how many there are, such as 1 2.")
PROBABILITY = Rule(lambda value: 0 < value < 1, "Use a number between 0 and 1.")


@dataclass(frozen=True, kw_only=True)
class ArcTextSettings(Group):
    """ARC tasks: how a task is written."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"arc", "arc-rows"})

    codec: Annotated[CodecName | str, CODEC, CODEC.flag] = "auto"
    """How a grid is written: cells (ARChitects), cells_16 (the same with 16 tokens), numpy (marc), words (BARC), dialogue (NVARC), chat
    (the model's chat template); auto: that for which `shrink` has cut the model, else chat. Or package.module:Name, a codec of your own."""
    drop_demos: Literal["last", "first"] = "last"
    """Where a prompt is too long, drop demonstrations from the end of the order (ARChitects) or from its beginning (Kaggle 2024, NVARC)."""


@dataclass(frozen=True, kw_only=True)
class ArcSettings(Group):
    """ARC tasks: how a task is searched, scored and chosen from."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"arc"})
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        **dict.fromkeys(("min_prob", "search_guess"), ("search", ("threshold",))),
        "search_samples": ("search", ("sample",)),
        "beam_width": ("search", ("beam",)),
        "views": ("view_form", ("symmetries",)),
    }

    view_form: Literal["symmetries", "marc"] = "symmetries"
    """Views that are searched. symmetries: --views of them (ARChitects). marc: without each demonstration in turn, in three orders, and
    one of these prompts each transposed, flipped in two ways and turned in two ways."""
    views: Annotated[int, at_least(1)] = 8
    """Views of each test input that are searched: the plain one, then the eight symmetries in turn (ARChitects: 16)."""
    view_colours: Colours = "keep_background"
    """Permute the colours of every view but the plain one: all but 0, any, or none (derived)."""
    search: SearchName = "threshold"
    """threshold: all replies above --min_prob (ARChitects); greedy; sample: --search_samples; beam: --beam_width."""
    min_prob: Annotated[float, PROBABILITY] = 0.1
    """The probability that a reply must exceed (ARChitects 2024: 0.1; Product of Experts: 0.09; NVARC: 0.2)."""
    search_samples: Annotated[int, at_least(1)] = 8
    """Replies a view in --search sample, at --temp (derived)."""
    beam_width: Annotated[int, at_least(1)] = 4
    """Beams a view in --search beam (Product of Experts compares 2 and 4)."""
    search_guess: Literal["no", "lowest_nll", "largest_sum"] = "no"
    """--search threshold: search the plain view first, and have its best grid scored under the other views before anything is decoded
    there: that with the lowest NLL (ARChitects), or with the largest sum (Kaggle 2024). Needs a model that `shrink` has cut."""
    search_requests: Annotated[int | None, OPTIONAL_COUNT] = None
    """Most requests of a search for one view; unset: no limit. What is cut is recorded."""
    search_tokens: Annotated[int | None, OPTIONAL_COUNT] = None
    """Most tokens that a search decodes for one view; unset: no limit."""
    score_views: Annotated[int, at_least(0)] = 8
    """Product of experts: score every candidate under this many views; 0: do not (ARChitects: 8; Product of Experts: 16)."""
    most_candidates: Annotated[int, at_least(1)] = 24
    """Candidates of a test input that are scored: those found under most views, then the likeliest (derived)."""
    selection: Annotated[SelectionName | str, SELECTION, SELECTION.flag] = "mul_aug_prob"
    """Which candidates become the two attempts: the product of experts (Product of Experts, ARChitects), the others as docs/arc.md says.
    Or package.module:Name, a selection of your own."""
    retry_unsure: Annotated[float | None, POSITIVE_FRACTION] = None
    """Do this share of the tasks again with another seed, those of whose first attempts the run is least sure, and select from the
    candidates of both (derived)."""
    reuse: Path | None = None
    """Take what another run of the same policy has searched and scored from its journal. Its adapted policies are those of this run with
    --adaptation_method stored --adapters of that run."""
    part: Annotated[tuple[int, int] | None, PART] = None
    """Do only this part of the tasks, such as 1 2: the first of two. Each part is a run, and `pool` makes one submission of them."""
    time_limit: Annotated[float | None, ABOVE_ZERO] = None
    """Seconds for the whole run, shared out among the tasks that are left. Tasks for which no time is left are not begun."""
    task_time_limit: Annotated[float | None, ABOVE_ZERO] = None
    """Seconds for one task."""
    search_time_limit: Annotated[float | None, ABOVE_ZERO] = None
    """Seconds for one search, of all views of a task by one policy; what it has found by then is kept (NVARC: 540)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_views == 0 and self.selection in SELECTION.ours and self.selection not in WITHOUT_EXPERTS:
            raise UsageError(
                f"--selection {self.selection} needs the product of experts, and --score_views is 0.",
                f"Use --score_views 8, or one of {', '.join(sorted(WITHOUT_EXPERTS))}.",
            )


@dataclass(frozen=True, kw_only=True)
class ArcTrainingSettings(Group):
    """ARC tasks: the rows of ttt and finetune."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttt", "finetune"})
    kinds: ClassVar[frozenset[str] | None] = frozenset({"arc", "arc-rows"})
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        **dict.fromkeys(("pairs_per_task", "drop_easiest"), FINETUNE),
        "train_colours": ("train_form", ("all_demos", "held_out")),
    }

    train_form: Literal["all_demos", "held_out", "marc"] = "all_demos"
    """all_demos: a row has all demonstrations, in random order (ARChitects). held_out: one of them is the query. marc: its own set, with
    one or two demonstrations left out, under 23 operations and colours."""
    train_loss: Literal["answer", "outputs", "outputs_but_first", "marc", "all"] = "outputs_but_first"
    """What carries loss: the last output, every output (ARChitects 2024), every output but the first (Product of Experts, marc), all."""
    train_dataset: tuple[str, ...] = ()
    """ttt: take the demonstrations from the tasks of these data sets instead, in turn: a control. finetune: the training sets, such as
    `re_arc*368 ConceptARC*128`: the number says how often each task comes in an epoch, every time under another view."""
    pairs_per_task: Annotated[tuple[int, ...], PAIRS] = (7,)
    """finetune: pairs of a task that is drawn from generated examples (re-arc), in turn where there are several (ARChitects 2024: 7)."""
    drop_easiest: Annotated[float, FRACTION] = 0.0
    """finetune: leave this share of the generated examples out, the easiest ones (Product of Experts: 0.5)."""
    train_colours: Colours = "keep_background"
    """Permute the colours of a row: all but 0, any, or none (derived). marc permutes all but 0, and has no choice."""


@dataclass(frozen=True, kw_only=True)
class ArcRewardSettings(Group):
    """ARC tasks: the reward of a held-out demonstration (--reward demonstrations)."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"sttrl", "ttrl"})
    kinds: ClassVar[frozenset[str] | None] = frozenset({"arc"})
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {f"reward_{part}": HELD_OUT for part in REWARD_PARTS}

    reward_format: Annotated[float, NOT_NEGATIVE] = 0.1
    """For a reply that is a grid (derived)."""
    reward_shape: Annotated[float, NOT_NEGATIVE] = 0.2
    """For the right shape (derived)."""
    reward_cells: Annotated[float, NOT_NEGATIVE] = 0.7
    """Times the fraction of right cells (derived)."""
    reward_exact: Annotated[float, NOT_NEGATIVE] = 1.0
    """For the right grid (derived)."""
