"""An order: what a request asks for, in the words of a session. Raises `RefusedError` for what cannot be done."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sttrl.serve.bodies import Adapting, ChatBody, Effort, Message, ResponseBody
from sttrl.serve.settings import EFFORT, EFFORTS, ServerSettings
from sttrl.types import Sampling
from sttrl.voting import VOTES

METHODS: Final = ("sttrl", "ttrl", "ttft", "slot", "memo")
"""The methods that adapt to one question."""
VOTE: Final = "vote"
KEPT: Final = "sttrl/"
STEPS: Final = ("steps", "n_votes", "n_train")
"""What an effort sets."""
SAMPLES_VOTES: Final = frozenset({"sttrl", "ttrl", "ttft"})
"""The methods that read ``n_votes`` and ``n_train``."""

Policy = Literal["base", "adapt", "vote", "kept"]


class RefusedError(Exception):
    """A request that is refused. ``param``: the field; None: none is to blame."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None, retry_s: float | None = None):
        super().__init__(message)
        self.message, self.param, self.status, self.code, self.retry_s = message, param, status, code, retry_s


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a request asks for. ``policy``: who answers. ``settings``: those of the run that adapts. ``kept``: the id of an adapter.

    ``sampling`` and ``n``: of the answer. ``logprobs``: None: not asked for; else how many of the likeliest tokens beside the chosen one.
    """

    model: str
    policy: Policy
    messages: tuple[dict[str, str], ...]
    settings: Mapping[str, Any]
    sampling: Sampling
    n: int
    seed: int
    stop: tuple[str, ...]
    logprobs: int | None
    budget_tokens: int
    deadline_s: float
    keep_adapter: bool
    kept: str | None = None


@dataclass(frozen=True, kw_only=True)
class House:
    """What an order is held against. ``model``: the name that clients use. ``response_tokens``: the longest response."""

    model: str
    response_tokens: int
    server: ServerSettings

    @property
    def names(self) -> tuple[str, ...]:
        """The models that clients may name, except kept adapters."""
        return (self.model, *(f"{self.model}:{method}" for method in METHODS), f"{self.model}:{VOTE}")


def chat_order(body: ChatBody, house: House) -> Order:
    """The order of a chat completion."""
    limit = body.max_completion_tokens or body.max_tokens
    name = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
    if body.n > house.server.max_n:
        raise RefusedError(f"n is {body.n}, and this server gives at most {house.server.max_n}.", param="n")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if not all(stop):
        raise RefusedError("stop has an empty text.", param="stop")
    top = (body.top_logprobs or 0) if body.logprobs else None
    return _order(
        house, body.model, body.messages, body.sttrl, body.reasoning_effort, "reasoning_effort", limit=limit, limit_name=name,
        temperature=body.temperature, top_p=body.top_p, n=body.n, seed=body.seed, stop=stop, logprobs=top,
    )  # fmt: skip


def response_order(body: ResponseBody, house: House) -> Order:
    """The order of a response."""
    messages = [Message(role="user", content=body.input)] if isinstance(body.input, str) else list(body.input)
    if body.instructions:
        messages.insert(0, Message(role="system", content=body.instructions))
    wants = bool(body.include) or body.top_logprobs is not None
    return _order(
        house, body.model, messages, body.sttrl, body.reasoning.effort if body.reasoning else None, "reasoning.effort",
        limit=body.max_output_tokens, limit_name="max_output_tokens", temperature=body.temperature, top_p=body.top_p, n=1, seed=None,
        stop=(), logprobs=(body.top_logprobs or 0) if wants else None,
    )  # fmt: skip


def _order(
    house: House,
    model: str,
    messages: Sequence[Message],
    adapting: Adapting,
    effort: Effort | None,
    effort_name: str,
    *,
    limit: int | None,
    limit_name: str,
    temperature: float | None,
    top_p: float | None,
    n: int,
    seed: int | None,
    stop: tuple[str, ...],
    logprobs: int | None,
) -> Order:
    policy, method, kept = _policy(model, adapting, effort, house)
    if policy in ("base", "kept"):
        given = [f"sttrl.{name}" for name in Adapting.model_fields if name in adapting.model_fields_set - {"seed", "method"}]
        given += [effort_name] if effort not in (None, "none") else []
        if given:
            raise RefusedError(f"{given[0]} does nothing with the model {model}, which does not adapt.", param=given[0])
    if limit is not None and limit > house.response_tokens:
        raise RefusedError(f"{limit_name} is {limit}, and this server gives at most {house.response_tokens}.", param=limit_name)
    drawn = adapting.seed if adapting.seed is not None else seed
    server = house.server
    settings = _settings(method, adapting, effort, house) if policy in ("adapt", "vote") else {}
    for name, value, most in (
        ("budget_tokens", adapting.budget_tokens, server.max_budget_tokens),
        ("deadline_s", adapting.deadline_s, server.max_deadline_s),
    ):
        if value is not None and value > most:
            raise RefusedError(f"sttrl.{name} is {value:g}, and this server gives at most {most:g}.", param=f"sttrl.{name}")
    return Order(
        model=model,
        policy=policy,
        messages=conversation(messages),
        settings=settings,
        sampling=Sampling(
            temperature=temperature if temperature is not None else 0.0 if policy in ("adapt", "vote") else 1.0,
            top_p=top_p if top_p is not None else 1.0,
            max_tokens=limit or house.response_tokens,
            top_logprobs=logprobs or 0,
        ),
        n=n,
        seed=secrets.randbits(31) if drawn is None else drawn,
        stop=stop,
        logprobs=logprobs,
        budget_tokens=adapting.budget_tokens or server.max_budget_tokens,
        deadline_s=adapting.deadline_s or server.max_deadline_s,
        keep_adapter=adapting.keep_adapter,
        kept=kept,
    )


def _policy(model: str, adapting: Adapting, effort: Effort | None, house: House) -> tuple[Policy, str, str | None]:
    """Who answers, the method, and the id of a kept adapter."""
    if model.startswith(KEPT):
        return "kept", "none", model.removeprefix(KEPT)
    if model not in house.names:
        shown = ", ".join(house.names)
        raise RefusedError(f"There is no model {model!r}. Models: {shown}, {KEPT}<id>.", param="model", status=404, code="model_not_found")
    named = model[len(house.model) + 1 :]
    method = adapting.method or named or "none"
    if method not in (*METHODS, VOTE, "none"):
        raise RefusedError(f"sttrl.method {method!r} is none of {', '.join((*METHODS, VOTE, 'none'))}.", param="sttrl.method")
    if named and adapting.method not in (None, named):
        raise RefusedError(f"sttrl.method {method!r} with the model {model}.", param="sttrl.method")
    if method == "none" or effort == "none":
        return "base", "none", None
    return ("vote" if method == VOTE else "adapt"), method, None


def _settings(method: str, adapting: Adapting, effort: Effort | None, house: House) -> dict[str, Any]:
    """The settings of the run that adapts."""
    preset = EFFORTS[EFFORT if effort in (None, "none") else str(effort)]
    own = {name: value for name, value in adapting if name in adapting.model_fields_set and value is not None}
    _check_adapting(method, adapting, own, house)
    for name in ("method", "budget_tokens", "deadline_s", "keep_adapter", "seed"):
        own.pop(name, None)
    chosen: dict[str, Any] = {**preset, **own}
    if "n_votes" in own and "n_train" not in own:
        chosen["n_train"] = max(2, min(preset["n_train"], own["n_votes"]))
    if method not in (*SAMPLES_VOTES, VOTE):
        del chosen["n_votes"], chosen["n_train"]
    if method == "memo":
        chosen.pop("steps") if "steps" not in own else None
    if method == "ttrl":
        chosen |= {"epochs": max(1, chosen.pop("steps")), "train_batch_size": 1, "eval_every": 0}
    most = chosen.get("n_votes", 0) * chosen.get("max_response_tokens", house.response_tokens)
    if most > house.server.max_budget_tokens:
        reason = f"A step may sample {most} tokens, and this server gives at most {house.server.max_budget_tokens} for a request."
        raise RefusedError(reason, param="sttrl.n_votes" if "n_votes" in own else "sttrl")
    return {"adaptation_method": "none" if method == VOTE else method, **chosen}


def _check_adapting(method: str, adapting: Adapting, own: Mapping[str, Any], house: House) -> None:
    """Raises `RefusedError` for a field that this server does not do, or that does nothing with the method."""
    if own.get("voting_function", "majority") not in VOTES:  # a client must not name code of its own
        shown = ", ".join(sorted(VOTES))
        raise RefusedError(f"sttrl.voting_function {own['voting_function']!r} is none of {shown}.", param="sttrl.voting_function")
    if own.get("max_response_tokens", 0) > house.response_tokens:
        reason = f"sttrl.max_response_tokens is {own['max_response_tokens']}, and this server gives at most {house.response_tokens}."
        raise RefusedError(reason, param="sttrl.max_response_tokens")
    idle = ("lr", "keep_adapter") if method == VOTE else () if method in SAMPLES_VOTES else ("n_votes", "n_train")
    for name in idle:
        if getattr(adapting, name):
            raise RefusedError(f"sttrl.{name} does nothing with the method {method}.", param=f"sttrl.{name}")


def conversation(messages: Sequence[Message]) -> tuple[dict[str, str], ...]:
    """The messages as a session takes them: one system message at most, then user and assistant in turn, the user last."""
    plain = [{"role": "system" if m.role == "developer" else m.role, "content": m.text} for m in messages]
    leading = 0
    while leading < len(plain) and plain[leading]["role"] == "system":
        leading += 1
    system = "\n\n".join(message["content"] for message in plain[:leading])
    turns: list[dict[str, str]] = []
    for message in plain[leading:]:
        if message["role"] == "system":
            raise RefusedError("A system message may only come first.", param="messages")
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {"role": message["role"], "content": f"{turns[-1]['content']}\n\n{message['content']}"}
        else:
            turns.append(message)
    if not turns or turns[-1]["role"] != "user":
        raise RefusedError("The last message must be the user's.", param="messages")
    if turns[0]["role"] != "user":
        raise RefusedError("The first message after the system's must be the user's.", param="messages")
    if not all(message["content"].strip() for message in turns):
        raise RefusedError("A message is empty.", param="messages")
    if any("\ud800" <= character <= "\udfff" for message in (*turns, {"content": system}) for character in message["content"]):
        raise RefusedError("A message has half of a character: a surrogate without its other half.", param="messages")
    return (*([{"role": "system", "content": system}] if system.strip() else []), *turns)
