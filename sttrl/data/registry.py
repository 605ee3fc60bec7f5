"""The named data sets, one on each line; docs/how_to_add_a_dataset.md says how to add one.

Revisions are git commits of the hub's repository, so that a name always stands for the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from sttrl.config.data import DATA_SET
from sttrl.config.extensions import FORM, imported, installed, place_of
from sttrl.data.arithmetic import arithmetic_rows
from sttrl.data.gpqa import multiple_choice
from sttrl.errors import DataError, UsageError
from sttrl.types import AnswerKind

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of TTRL's prompts (arXiv 2504.16084)."""

BOXED_LETTER = "Please reason step by step, and put the letter of your final answer within \\boxed{}."
"""The same for multiple choice (derived)."""

_PLAIN_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
SUFFIXES = (*_PLAIN_SUFFIXES, *(f"{suffix}.gz" for suffix in _PLAIN_SUFFIXES), ".parquet")
"""The endings of files that can be read; case does not matter."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Where a data set is on the hub.

    ``where``: a column and the value that its rows must have. ``convert``: makes {question, options, answer, id} of a row.
    """

    repo: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    where: tuple[str, object] | None = None
    convert: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """What is known of a data set before it is read.

    ``rows``: how many there should be (None: not known). ``hub``: where to load it from if no folder has it. ``generate``: makes the
    rows of a generated data set. ``instruction``: a sentence that follows every question.
    ``printable`` False: the questions are never shown in plain text, because their authors ask for that. ``own``: it is not one of ours.
    """

    name: str
    rows: int | None = None
    kind: AnswerKind = "math"
    hub: HubSource | None = None
    generate: Callable[[], Sequence[Mapping[str, object]]] | None = None
    max_prompt_tokens: int = 1024
    instruction: str | None = BOXED
    printable: bool = True
    own: bool = False

    @property
    def file_names(self) -> tuple[str, ...]:
        """The file names to look for in a data folder, in this order; the last is the layout of TTRL's repository."""
        return (*(f"{self.name}{suffix}" for suffix in SUFFIXES), f"{self.name}/test.json")


def _math500(level: int | None = None) -> HubSource:
    where = None if level is None else ("level", level)
    return HubSource(repo="HuggingFaceH4/MATH-500", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", split="test", where=where)


_AIME = HubSource(repo="HuggingFaceH4/aime_2024", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a", split="train")
_AMC = HubSource(repo="AI-MO/aimo-validation-amc", revision="69d78a4a2c840e82d69af6bc742bda09005f6316", split="train")
_GSM8K = HubSource(repo="openai/gsm8k", revision="740312add88f781978c0658806c59bc2815b9866", config="main", split="test")
_GPQA = HubSource(
    repo="Idavidrein/gpqa",
    revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
    config="gpqa_diamond",
    split="train",
    convert=multiple_choice,
)

_ENTRIES = (
    NamedDataset(name="AIME-TTT", rows=30, kind="number", hub=_AIME, max_prompt_tokens=512),
    NamedDataset(name="AMC-TTT", rows=83, kind="number", hub=_AMC),
    NamedDataset(name="MATH-TTT", rows=500, kind="math", hub=_math500()),
    NamedDataset(name="MATH-L1-TTT", rows=43, kind="math", hub=_math500(level=1)),
    NamedDataset(name="MATH-L2-TTT", rows=90, kind="math", hub=_math500(level=2)),
    NamedDataset(name="MATH-L3-TTT", rows=105, kind="math", hub=_math500(level=3)),
    NamedDataset(name="MATH-L4-TTT", rows=128, kind="math", hub=_math500(level=4)),
    NamedDataset(name="MATH-L5-TTT", rows=134, kind="math", hub=_math500(level=5)),
    NamedDataset(name="GSM8K-TTT", rows=1319, kind="number", hub=_GSM8K),
    NamedDataset(name="GPQA-TTT", rows=198, kind="choice", hub=_GPQA, instruction=BOXED_LETTER, printable=False),
    NamedDataset(name="arithmetic-demo", rows=56, kind="number", generate=arithmetic_rows, instruction=None),
)

DATASETS: dict[str, NamedDataset] = {entry.name: entry for entry in _ENTRIES}
"""The named data sets, by name."""


def custom_dataset(name: str, kind: AnswerKind | None = None) -> NamedDataset:
    """The entry for a data set without a name: its answers are mathematics unless ``kind`` is given."""
    kind = kind or "math"
    instruction = BOXED_LETTER if kind == "choice" else BOXED
    return NamedDataset(name=name, kind=kind, instruction=instruction, printable="gpqa" not in name.lower())


def own_dataset(name: str) -> NamedDataset | None:
    """What ``package.module:Name`` or an entry point names; None for any other name. Raises `DataError` if that is no data set."""
    if name in DATASETS or DATA_SET.reference(name) is None:
        return None
    try:
        found = imported(DATA_SET, name)
    except UsageError as error:
        raise DataError(error.message, error.hint) from error
    if not isinstance(found, NamedDataset):
        raise DataError(
            f"--dataset {name} does not fit: {place_of(found)} is no NamedDataset.",
            "NamedDataset is in sttrl.data; docs/how_to_add_a_dataset.md shows one.",
        )
    return replace(found, own=True)


def unknown_dataset(name: str) -> DataError:
    """The error for an unknown name: it suggests the nearest known name and lists the known ones."""
    close = get_close_matches(name.lower(), [known.lower() for known in DATASETS], n=1)
    meant = [known for known in DATASETS if known.lower() in close]
    suggestion = f"Did you mean {meant[0]}? " if meant else ""
    known = ", ".join((*DATASETS, *installed(DATA_SET)))
    forms = f"Known: {known}; or a file ({', '.join(SUFFIXES)}); or hf:org/name[@revision][:config][:split]; or {FORM}."
    return DataError(f"There is no data set or file {name!r}.", suggestion + forms)
