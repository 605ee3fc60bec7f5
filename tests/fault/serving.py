"""The endpoint on the stand-in engine: the real session, runner, judge, application and uvicorn; only the lanes are stand-ins."""

from __future__ import annotations

import asyncio
import math
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from openai import AsyncOpenAI
from stand_in import CHOICES, Faults, StandIn, StandInPolicy, digest, drawn, share

from sttrl.engine.base import EngineSettings, Policy
from sttrl.library.session import AsyncSession
from sttrl.questions.answers import Judge
from sttrl.run.plan import Shared
from sttrl.run.shared import StartLanes
from sttrl.serve.app import Endpoint
from sttrl.serve.desk import Desk
from sttrl.serve.settings import ServerSettings
from sttrl.types import DeltaSpec, FinishReason, Request, Rollout

MODEL = "builtin/SmolLM2-135M-Instruct"
SETTINGS: dict[str, Any] = {
    "max_response_tokens": 16, "max_prompt_tokens": 128, "answer_kind": "number", "instruction": "", "parallel_problems": 2,
    "ties": "first",
}  # fmt: skip
TOKENIZERS = Shared()
"""The tokenizer, which all sessions of this process share."""
NAMES = ("Ann", "Ben", "Cleo", "Dora", "Emil", "Finn", "Gus", "Hal", "Ida")
Texts = Callable[[Sequence[int], int, int], tuple[str, FinishReason]]


def spoken(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """The usual response: its first token is the answer."""
    return f"{answer} it is, says {NAMES[digest(seed) % len(NAMES)]}.", "stop"


def wordy(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """A response without an answer that can be extracted."""
    return "Paris is lovely.", "stop"


class SpeakingPolicy(StandInPolicy):
    """A stand-in whose tokens are those of its text, for the real tokenizer."""

    engine: Lane

    def answer_of(self, token: int) -> int:
        """The tokens of the digits."""
        return max(0, token - self.engine.zero) % CHOICES

    def _rollout(self, request: Request) -> Rollout:
        prompt_T, sampling, seed = request.prompt_T, request.sampling, request.seed
        self.engine.asked.append(request)
        p = self.probabilities(prompt_T, sampling.temperature or 1.0)
        answer = p.index(max(p)) if sampling.temperature == 0 else drawn(p, share("draw", seed))
        text, finish = self.engine.texts(prompt_T, seed if sampling.temperature else 0, answer)
        token_T = [*self.engine.tokenizer.encode(text), self.engine.end]
        if len(token_T) > sampling.max_tokens:
            token_T, finish = token_T[: sampling.max_tokens], "length"
            text = self.engine.tokenizer.decode(token_T)
        logprob = math.log(p[answer]) / len(token_T)
        top = tuple((token, logprob - place) for place, token in enumerate(range(100, 100 + sampling.top_logprobs)))
        return Rollout(
            seed=seed, version=self.version, token_T=tuple(token_T), logprob_T=(logprob,) * len(token_T), finish=finish, text=text,
            top_T=(top,) * len(token_T) if top else (),
        )  # fmt: skip


class Lane(StandIn):
    """A stand-in lane. ``holds``: kinds of calls that wait until they are let go; ``held``: how many wait."""

    def __init__(self, settings: EngineSettings, tokenizer: Any, faults: Faults | None = None, texts: Texts = spoken) -> None:
        super().__init__(faults, texts)
        self.settings, self.tokenizer = settings, tokenizer
        self.zero, self.end = tokenizer.encode("0")[0], settings.stop_token_ids[0]
        self.asked: list[Request] = []
        self.holds: dict[str, asyncio.Event] = {}
        self.held: defaultdict[str, int] = defaultdict(int)
        self.most_open = 0

    def policy(self, delta: DeltaSpec) -> Policy:
        self.most_open = max(self.most_open, len(self.open))
        return SpeakingPolicy(self, delta)

    async def pause(self, kind: str) -> None:
        if kind in self.holds:
            self.held[kind] += 1
            try:
                await self.holds[kind].wait()
            finally:
                self.held[kind] -= 1
        await asyncio.sleep(0)


@dataclass
class Served:
    """A running endpoint. ``lanes``: all that were started, those of earlier engines too. ``said``: what its operator reads."""

    url: str
    endpoint: Endpoint
    lanes: list[Lane]
    said: list[str]
    clients: list[AsyncOpenAI] = field(default_factory=list)

    def client(self, key: str = "any", **options: Any) -> AsyncOpenAI:
        """A client of OpenAI."""
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **options)
        self.clients.append(client)
        return client

    @property
    def web(self) -> httpx.AsyncClient:
        """A client of HTTP, for what the other one does not send."""
        return httpx.AsyncClient(base_url=self.url, timeout=60)

    @property
    def lane(self) -> Lane:
        """The lane that was started last."""
        return self.lanes[-1]

    @property
    def requests(self) -> list[Path]:
        """The folders of requests."""
        return sorted((self.endpoint.desk.session.folder / "requests").glob("*"))

    def hold(self, kind: str) -> asyncio.Event:
        """Let calls of this kind wait for the event."""
        return self.lane.holds.setdefault(kind, asyncio.Event())

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await until(lambda: not self.endpoint.jobs.by_id and not self.endpoint.desk.adapting)


async def until(what: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own limit of time is the only one."""
    while not what():
        await asyncio.sleep(0.005)


def lanes_into(found: list[Lane], **options: Any) -> StartLanes:
    """Starts stand-in lanes, and adds them to ``found``. ``faults``: of the first lane that is started."""
    first = options.pop("faults", None)

    async def start(settings: EngineSettings, tokenizer: Any, logs: Path, say: Callable[[str], None]) -> list[Any]:
        started = []
        for _ in range(settings.lanes):
            started.append(Lane(settings, tokenizer, None if found else first, **options))
            found.append(started[-1])
        return started

    return start


@asynccontextmanager
async def served(
    folder: Path,
    judge: Judge,
    *,
    keys: Sequence[str] = (),
    server: ServerSettings | None = None,
    faults: Faults | None = None,
    texts: Texts = spoken,
    **settings: Any,
) -> AsyncIterator[Served]:
    """An endpoint on a free port, until the block ends."""
    lanes, said = list[Lane](), list[str]()
    start = lanes_into(lanes, faults=faults, texts=texts)
    opened = AsyncSession(MODEL, output_dir=folder / "served", say=said.append, start_lanes=start, **{**SETTINGS, **settings})
    opened.shared = TOKENIZERS
    async with opened as session:
        endpoint = Endpoint(Desk(session, judge, server or ServerSettings(), MODEL, said.append), keys, said.append)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            web = uvicorn.Server(uvicorn.Config(endpoint.app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
            running = asyncio.create_task(web.serve(sockets=[listener]))
            here = Served(f"http://127.0.0.1:{listener.getsockname()[1]}", endpoint, lanes, said)
            endpoint.resume()
            try:
                await until(lambda: web.started)
                yield here
            finally:
                for client in here.clients:
                    await client.close()
                web.should_exit = True
                await running
                await endpoint.jobs.close()
    assert not any(lane.open for lane in lanes), "forks are left open"


def ask(text: str = "What is 9 * 4?") -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]
