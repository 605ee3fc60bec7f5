"""Which problems of which data set are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sttrl.config.extensions import Choice
from sttrl.config.rules import OPTIONAL_COUNT, Group

DATA_SET = Choice(setting="dataset", noun="data set", group="sttrl.data_sets", open=True)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Group):
    """Which problems of which data set are done."""

    dataset: Annotated[str, DATA_SET, DATA_SET.flag] = "arithmetic-demo"
    """A named data set (AIME-TTT, AMC-TTT, MATH-TTT, MATH-L1-TTT to MATH-L5-TTT, GSM8K-TTT, GPQA-TTT, arithmetic-demo), a
    .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, hf:org/name[@revision][:config][:split], or package.module:Name, a data set of
    your own."""
    limit: Annotated[int | None, OPTIONAL_COUNT] = None
    """Ask only the first questions, this many."""
    ids: tuple[str, ...] = ()
    """Ask only the questions with these ids."""
    data_dir: Path | None = None
    """Where named data sets are looked for first; then the environment variable STTRL_DATA, then the hub."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a row that cannot be used does: stop and name the row, or skip and count it."""
    max_prompt_tokens: Annotated[int | None, OPTIONAL_COUNT] = None
    """Longest prompt; a longer one is an error, never cut. Unset: the data set's limit (TTRL: 512 AIME, 1024 others)."""
