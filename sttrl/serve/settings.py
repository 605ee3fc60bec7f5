"""The settings of the endpoint, and what ``reasoning_effort`` stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from sttrl.config.rules import ABOVE_ZERO, NOT_NEGATIVE, Group, at_least

HOST: Final = "127.0.0.1"

IN_FLIGHT: Final = 4
"""The seats of a lane, unless ``--parallel_problems`` says otherwise (derived)."""
EFFORTS: Final = {
    "low": {"steps": 1, "n_votes": 16, "n_train": 16},
    "medium": {"steps": 3, "n_votes": 32, "n_train": 32},
    "high": {"steps": 5, "n_votes": 64, "n_train": 32},
}
"""What ``reasoning_effort`` stands for (derived; ``high`` has the defaults of a run). ``none`` does not adapt."""
EFFORT: Final = "medium"
"""The effort of a request to a model that adapts, if it names none."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Group):
    """The endpoint: where it listens, who may ask, and how much a request may take."""

    host: str = HOST
    """The address it listens on; 0.0.0.0: every address of this machine."""
    port: Annotated[int, NOT_NEGATIVE] = 8000
    """The port; 0: a free one, which is printed."""
    api_key: tuple[str, ...] = ()
    """The keys that clients may use; also the environment variable STTRL_API_KEY, with commas between several. None: no key is needed."""
    max_waiting: Annotated[int, NOT_NEGATIVE] = 0
    """How many requests may wait for a seat; one more is answered 429 with Retry-After."""
    max_background: Annotated[int, NOT_NEGATIVE] = 64
    """How many background responses may be unfinished at once."""
    max_body_kib: Annotated[int, at_least(1)] = 1024
    """The largest body of a request."""
    max_n: Annotated[int, at_least(1)] = 16
    """The most choices of a request."""
    max_budget_tokens: Annotated[int, at_least(1)] = 1_000_000
    """The most response tokens that adapting to a request samples and trains on. It stops before."""
    max_deadline_s: Annotated[float, ABOVE_ZERO] = 3600.0
    """The longest deadline of a request, and the deadline of one that names none."""
    grace_s: Annotated[float, NOT_NEGATIVE] = 30.0
    """After SIGTERM: how many seconds the requests in flight have left."""
    keep_runs: bool = False
    """Keep the run folder of every request, for `view` and `report`."""
    log_prompts: bool = False
    """Print questions and answers too."""


def served_folder(output_dir: Path, run_name: str | None) -> Path:
    """Where the endpoint keeps its requests and adapters."""
    return output_dir / (run_name or "serve")
