"""What the sampler asks of vLLM: its arguments on each platform, a group of seeded samples, other weights."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from vllm import AsyncEngineArgs, SamplingParams
from vllm.config import KVTransferConfig
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from sttrl.engine.base import EngineSettings
from sttrl.engine.cpu.parts import is_on
from sttrl.engine.names import BIAS_FILE, EXTRA_KEY, LOWEST, STOP, TOP
from sttrl.engine.vllm.noise import CUT
from sttrl.engine.vllm.records import Adapter, Sampled
from sttrl.types import MOST_TOP_LOGPROBS, FinishReason, Request

if TYPE_CHECKING:
    from sttrl.engine.cpu.engine_thread import EngineThread

MIB = 1 << 20
CPU_BLOCK_SIZE = 32
SHARED_PROMPTS = KVTransferConfig(
    kv_connector="SharedPrompts", kv_connector_module_path="sttrl.engine.cpu.shared_prompts", kv_role="kv_both"
)


class Generation:
    """vLLM's AsyncLLM, with sampling by `sttrl.engine.vllm.noise` and weights by `sttrl.engine.merge`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.request_ids = itertools.count()
        arguments = engine_args(settings)
        self.thread: EngineThread | None = None
        if settings.device == "cpu" and is_on("engine_thread"):
            # Imported here: it uses parts that vLLM keeps to itself, and only CPUs need it.
            from sttrl.engine.cpu.engine_thread import EngineThread

            self.thread = EngineThread(arguments.create_engine_config())
            self.llm = self.thread.client()
        else:
            self.llm = AsyncLLM.from_engine_args(arguments)
        self.vocabulary = int(self.llm.model_config.get_vocab_size())

    async def generate(self, requests: Sequence[Request], adapter: Adapter | None, bias_file: str | None, alone: bool) -> list[Sampled]:
        """One response to each request. ``bias_file`` holds what is added to the logits, if anything is.

        ``alone``: nothing else is in flight. Then all requests enter while the scheduler is paused, so that they are in the same batches
        each time, and the result is the same to the bit. If the caller is cancelled, vLLM drops the requests.
        """
        lora = adapter and LoRARequest(adapter.name, adapter.id, adapter.folder)
        names = [f"{next(self.request_ids)}" for _ in requests]
        try:
            try:
                if alone:
                    await self.llm.pause_generation(mode="keep", clear_cache=False)
                queues = [
                    await self.llm.add_request(
                        name,
                        {"prompt_token_ids": [*request.prompt_T, *request.given_T[:-1]]},
                        self._parameters(request, bias_file),
                        lora_request=lora,
                    )
                    for name, request in zip(names, requests, strict=True)
                ]
            finally:
                if alone:
                    await self.llm.resume_generation()
            outputs = [await queue.get() for queue in queues]
        except asyncio.CancelledError:
            await self.llm.abort(names)
            raise
        ends = frozenset(self.settings.stop_token_ids)
        return [_given(o, r, ends) if r.given_T else _sampled(o, r.sampling.top_logprobs) for o, r in zip(outputs, requests, strict=True)]

    async def load_policy(self, folder: str | None) -> None:
        """Other weights. The prefix cache belongs to the old ones, so it goes with them."""
        await self.llm.collective_rpc("load_policy", args=(self.settings.model_folder, folder))
        await self.llm.reset_prefix_cache()

    async def remove_adapter(self, adapter_id: int) -> None:
        """Forget an adapter."""
        await self.llm.remove_lora(adapter_id)

    def shutdown(self) -> None:
        """End vLLM's processes, or its thread."""
        if self.thread:
            self.thread.shutdown()
        self.llm.shutdown()

    def _parameters(self, request: Request, bias_file: str | None) -> SamplingParams:
        sampling, given = request.sampling, bool(request.given_T)
        assert not given or (self.vocabulary <= MOST_TOP_LOGPROBS and bias_file is None), "a response can be given to a small model only"
        top = self.vocabulary if given else sampling.top_logprobs
        extra = {"seed": request.seed, "temperature": sampling.temperature, "top_p": sampling.top_p, TOP: top, BIAS_FILE: bias_file}
        if sampling.lowest_logprob is not None and not given:
            extra |= {LOWEST: sampling.lowest_logprob, STOP: self.settings.stop_token_ids[0]}
        return SamplingParams(
            temperature=0.0,
            max_tokens=1 if given else sampling.max_tokens,
            prompt_logprobs=self.vocabulary if given else None,
            logprobs=min(top + 1, self.vocabulary) if top else 0,  # one more: the chosen token is always among them
            detokenize=False,
            stop_token_ids=list(self.settings.stop_token_ids),
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={EXTRA_KEY: extra},
        )


def _sampled(output: RequestOutput, top: int) -> Sampled:
    """One finished response. ``top``: how many of the likeliest tokens were asked for."""
    completion = output.outputs[0]
    tokens = tuple(completion.token_ids)
    found_T = [{token: float(p.logprob) for token, p in at.items()} for at in completion.logprobs or []]
    cut = bool(tokens) and found_T[-1][tokens[-1]] >= CUT / 2
    if cut:
        tokens, found_T = tokens[:-1], found_T[:-1]
    if top:  # the chosen token's log-prob comes with its sign turned, see `sttrl.engine.vllm.noise`
        found_T = [at | {token: -at[token]} for token, at in zip(tokens, found_T, strict=True)]
    logprobs = tuple(at[token] for token, at in zip(tokens, found_T, strict=True))
    top_T = tuple(tuple(sorted(at.items(), key=lambda pair: (-pair[1], pair[0]))[:top]) for at in found_T) if top else ()
    finish: FinishReason = "unlikely" if cut else "stop" if completion.finish_reason == "stop" else "length"
    return Sampled(tokens, logprobs, finish, top_T)


def _given(output: RequestOutput, request: Request, ends: frozenset[int]) -> Sampled:
    """What vLLM says of a given response: all but its last token were part of the prompt, and the last is among those it chose from.

    Of a prompt vLLM reports plain logits, since `engine_args` asks for ``processed_logits``; here all of them, so that they can be
    normalised.
    """
    sampling, given_T = request.sampling, request.given_T
    logits_T = [{t: float(p.logprob) for t, p in (at or {}).items()} for at in (output.prompt_logprobs or [])[len(request.prompt_T) :]]
    found_T = [_log_softmax(at, sampling.temperature or 1.0) for at in logits_T]
    found_T.append(dict(_sampled(output, len(output.outputs[0].logprobs[0])).top_T[0]))
    top_T = tuple(tuple(sorted(at.items(), key=lambda pair: (-pair[1], pair[0]))[: sampling.top_logprobs]) for at in found_T)
    logprobs = tuple(at[token] for token, at in zip(given_T, found_T, strict=True))
    return Sampled(given_T, logprobs, "stop" if given_T[-1] in ends else "length", top_T if sampling.top_logprobs else ())


def _log_softmax(logit_of: dict[int, float], temperature: float) -> dict[int, float]:
    """Log-probabilities of all tokens."""
    scaled = {token: logit / temperature for token, logit in logit_of.items()}
    most = max(scaled.values())
    total = most + math.log(math.fsum(math.exp(logit - most) for logit in scaled.values()))
    return {token: logit - total for token, logit in scaled.items()}


def engine_args(settings: EngineSettings) -> AsyncEngineArgs:
    """vLLM's arguments for a platform: what differs between CPU and GPU, and nothing else, is decided here."""
    arguments = partial(
        AsyncEngineArgs,
        model=settings.model_folder,
        worker_extension_cls="sttrl.engine.merge.PolicyWeights",
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        skip_tokenizer_init=True,
        trust_remote_code=settings.trust_remote_code,
        logits_processors=["sttrl.engine.vllm.noise:SeededSampling"],
        logprobs_mode="processed_logits",
        max_logprobs=MOST_TOP_LOGPROBS + 1,
        async_scheduling=False,
        enable_prefix_caching=True,
        disable_log_stats=True,
    )
    if settings.device == "cpu":
        return arguments(
            enforce_eager=True,  # compiling takes longer than a short run
            distributed_executor_backend="uni",
            enable_chunked_prefill=False,
            block_size=CPU_BLOCK_SIZE,
            max_num_batched_tokens=max(2048, settings.max_model_len),
            kv_cache_memory_bytes=settings.kv_cache_mib * MIB,
            kv_transfer_config=SHARED_PROMPTS if is_on("shared_prompts") else None,
        )
    arguments = partial(arguments, gpu_memory_utilization=settings.gpu_memory_utilization)
    if settings.adapter is None or not settings.samples_adapters:
        return arguments()
    return arguments(enable_lora=True, max_loras=settings.max_forks, max_lora_rank=max(8, settings.adapter.rank))
