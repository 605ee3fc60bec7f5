"""What a run asks of its engine: the key-value cache that its samples can fill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sttrl.launch import kv_cache_mib

SMOL = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        (SMOL, 2 * 30 * 3 * 64),
        ({**SMOL, "num_key_value_heads": None}, 2 * 30 * 9 * 64),
        ({**SMOL, "head_dim": 128}, 2 * 30 * 3 * 128),
        ({"text_config": SMOL, "num_hidden_layers": 2}, 2 * 30 * 3 * 64),
        ({"num_hidden_layers": 30}, None),
    ],
    ids=str,
)
def test_what_a_token_leaves_in_the_cache(settings: dict[str, Any], numbers: int | None, tmp_path: Path) -> None:
    from sttrl.engine.models import cached_numbers

    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert cached_numbers(tmp_path) == numbers


def test_the_cache_is_what_the_samples_can_need_and_no_more_than_a_share_of_the_memory() -> None:
    # 33 sequences of 77 + 64 tokens, each 2 x 30 x 3 x 64 numbers of 2 bytes: 102.2 MiB
    assert kv_cache_mib(32, 77, 11520, 2) == 103
    assert kv_cache_mib(32, 77, 11520, 4) == 205
    assert kv_cache_mib(128, 3500, 11520, 2) == kv_cache_mib(1, 1, None, 2) == 256
