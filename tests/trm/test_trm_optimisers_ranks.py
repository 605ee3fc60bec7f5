"""The puzzle table's optimiser over two processes: both take the step that one takes with both batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sttrl.trm.optimisers import SignSGD
from sttrl.trm.puzzle_table import PuzzleTable

IDS = torch.tensor([[0, 1, 1], [1, 3, 0]])
RANK = """
import sys, torch
from safetensors.torch import save_file
from test_trm_optimisers_ranks import IDS, stepped
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
save_file({"weights": stepped(IDS[rank], torch.arange(rank * 3, rank * 3 + 3))}, out)
torch.distributed.destroy_process_group()
"""


def stepped(ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The table after a step in which each row of the batch has a gradient that depends on its place in the whole batch."""
    table = PuzzleTable(5, 4)
    table.weights.copy_(torch.arange(20.0).view(5, 4))
    directions = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))[places]
    (table(ids) * directions).sum().backward()
    SignSGD(table).step(0.1)
    return table.weights


@pytest.mark.slow
def test_two_ranks_step_as_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"), str(tmp_path / f"{rank}.safetensors")], env=environment
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    expected = stepped(IDS.flatten(), torch.arange(6))
    for rank in range(2):
        assert torch.equal(load_file(tmp_path / f"{rank}.safetensors")["weights"], expected)
