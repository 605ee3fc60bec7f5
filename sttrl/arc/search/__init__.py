"""Searches: from prompts to replies with their log-probs, a file each.

To add a search: write it in a file of its own as a `Search`, give its settings a group of `SearchConfig`, and add a line to `SEARCHES`.
"""

from __future__ import annotations

from typing import Final

from sttrl.arc.search.base import (
    Ask,
    BeamConfig,
    Cut,
    Found,
    Limits,
    Reply,
    SampleConfig,
    Sampler,
    Search,
    SearchConfig,
    ThresholdConfig,
)
from sttrl.arc.search.beam import beam_search
from sttrl.arc.search.greedy import greedy_search
from sttrl.arc.search.sampled import sample_search
from sttrl.arc.search.threshold import threshold_search

SEARCHES: Final[dict[str, Search]] = {
    "threshold": threshold_search,
    "greedy": greedy_search,
    "sample": sample_search,
    "beam": beam_search,
}

__all__ = [
    "SEARCHES",
    "Ask",
    "BeamConfig",
    "Cut",
    "Found",
    "Limits",
    "Reply",
    "SampleConfig",
    "Sampler",
    "Search",
    "SearchConfig",
    "ThresholdConfig",
    "beam_search",
    "greedy_search",
    "sample_search",
    "threshold_search",
]
