"""verl's FSDP engines with the prompt computed once, registered for CPU and, with a vendor key, for CUDA.

Rows carry the last prompt token and the response; the rest of the prompt travels beside them once
(``SHARED_PROMPT``). `prepare_model_inputs` packs them behind one copy of the prompt, or, for a model whose attention
cannot take a tree mask, spells every row out and lets verl's own code run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from tensordict import TensorDict
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForTokenClassification
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.utils.fsdp_utils import apply_fsdp2
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.config.optimizer import build_optimizer
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from sttrl.engine.base import AdapterShape
from sttrl.engine.verl.attention import LAYOUT
from sttrl.engine.verl.packing import Packed, pack
from sttrl.objectives.token_statistics import STATISTICS, Scores
from sttrl.types import Measure, ParameterGroup, Stat

SHARED_PROMPT = "shared_prompt"
MEASURE = "measure"
FINAL_LOGITS = "final_logits"
PACKED = "packed"
BITSANDBYTES = "bitsandbytes.optim"
VALUE_HEAD = "score"
SHAPES = 32
"""Packed sequences are padded to a multiple of this. On CPU every new shape of a product is compiled, and oneDNN keeps part of it
for ever: without padding the learner grew by 50 MiB a question."""
JUST_LOGPROBS = Measure()
ALWAYS: Stat = "logprob"


class PromptOnce(FSDPEngineWithLMHead):
    """Inputs packed behind one copy of their prompt. Outputs are verl's: nested tensors as long as the rows, the score of a
    row's token t at position t - 1."""

    packs = True
    takes_logits_to_keep = True

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Shard what is trained. A lone rank keeps the frozen base unsharded: to gather it would copy it twice in every pass. In float32,
        where nothing is cast either, it shards nothing: for a row of 82 tokens FSDP2 alone took an eighth of a step."""
        with one_unit(module) if self.model_config.lora and AdapterShape(**self.model_config.lora).ends else nullcontext():
            return self._sharded(module)

    def _sharded(self, module: torch.nn.Module) -> torch.nn.Module:
        if not self.model_config.lora or torch.distributed.get_world_size() > 1:
            return super()._build_fsdp_module(module)
        self._autocast_dtype = PrecisionType.to_dtype(self.engine_config.dtype)
        if self._autocast_dtype == torch.float32 or self._has_parts_of_bitsandbytes:
            return module.to(get_device_name())
        kwargs = {
            "mesh": self.device_mesh,
            "mp_policy": MixedPrecisionPolicy(param_dtype=self._autocast_dtype, reduce_dtype=torch.float32),
            "reshard_after_forward": self.engine_config.reshard_after_forward,
            "ignored_params": {p for p in module.parameters() if not p.requires_grad},
        }
        apply_fsdp2(module.to(get_device_name()), kwargs, self.engine_config)
        return module

    @property
    def _has_parts_of_bitsandbytes(self) -> bool:
        """Whether the base or the optimiser is bitsandbytes', which knows no sharded tensors."""
        base = self.model_config.lora.get("base", "same") if self.model_config.lora else "same"
        return base != "same" or self.optimizer_config.optimizer_impl == BITSANDBYTES

    def _build_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """verl's, with a named group for each `ParameterGroup` that the model has."""
        ends = AdapterShape(**self.model_config.lora).ends if self.model_config.lora else ()
        trained = tuple(f".{name}.{part}" for name in ends for part in ("modules_to_save.", "lora_"))
        groups: dict[ParameterGroup, list[torch.nn.Parameter]] = {"main": [], "embedding": []}
        for name, parameter in module.named_parameters():
            groups["embedding" if any(part in name for part in trained) else "main"].append(parameter)
        return build_optimizer([{"params": found, "name": name} for name, found in groups.items() if found], self.optimizer_config)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Pack the micro-batch behind its prompt, or spell its rows out."""
        prompt = torch.tensor(tu.get_non_tensor_data(micro_batch, SHARED_PROMPT, ()), dtype=torch.long)
        rows = [row.cpu() for row in micro_batch["input_ids"].unbind()]
        packed = pack(torch.cat([prompt, rows[0][:1]]), [row[1:] for row in rows], SHAPES)
        if not self.packs:
            inputs, _ = super().prepare_model_inputs(spelled_out(micro_batch, prompt, rows))
            return inputs, {PACKED: packed}
        device = micro_batch["input_ids"].device
        inputs = {
            "input_ids": packed.input_N[None].to(device),
            "position_ids": packed.position_N[None].to(device),
        }
        if packed.layout is not None:
            inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)  # the layout says who sees whom
            inputs[LAYOUT] = packed.layout.to(device)
        if self.takes_logits_to_keep:
            inputs["logits_to_keep"] = packed.logit_L.to(device)
        return inputs, {PACKED: packed}

    def scoring(self, output_BNX: torch.Tensor, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model put out where tokens are scored, ``[L, X]`` of its output ``[B, N, X]``, and the row of each token ``[S]``."""
        device = output_BNX.device
        if not self.packs:
            start = packed.prompt_length - 1
            spelled_SX = torch.cat([output_BNX[row, start : start + n] for row, n in enumerate(packed.lengths_G)])
            return spelled_SX, torch.arange(len(spelled_SX), device=device)
        scoring_LX = output_BNX[0] if self.takes_logits_to_keep else output_BNX[0][packed.logit_L.to(device)]
        return scoring_LX, packed.row_S.to(device)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu"])
@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cuda"], vendor=["nvidia"])
class PromptOnceEngine(PromptOnce):
    """The policy. ``logit_bias``: a vector over the vocabulary that every logit row gets, where SLOT has set one."""

    logit_bias: torch.Tensor | None = None

    def _build_lora_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """The adapter, and the modules that are trained whole beside it; where the model ties the two, they stay tied."""
        shape = AdapterShape(**self.model_config.lora)
        whole = list(shape.trainable_modules)
        if shape.base != "same":
            # Imported here: only this needs the package.
            from sttrl.engine.verl.quantised import quantised

            module = quantised(module, shape.base, PrecisionType.to_dtype(self.engine_config.dtype))
        tied = bool(whole) and bool(module.config.get_text_config().tie_word_embeddings)
        return adapted(module, shape, task_type=TaskType.CAUSAL_LM, modules_to_save=whole or None, ensure_weight_tying=tied)

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Log-probs of the response tokens, under ``MEASURE`` other statistics, and under ``FINAL_LOGITS`` each row's last logits.

        The last logits ``[rows, V]`` are no nested tensor: the loss function that asked for them takes them out.
        """
        packed: Packed = output_args[PACKED]
        measure: Measure = tu.get_non_tensor_data(micro_batch, MEASURE, JUST_LOGPROBS)
        logit_LV, row_S = self.scoring(output.logits, packed)
        if self.logit_bias is not None:
            logit_LV = logit_LV.float() + self.logit_bias.to(logit_LV.device)
        temperature = float(tu.get_non_tensor_data(micro_batch, "temperature", 1.0))
        of = Scores(logit_LV, temperature, row_S, packed.label_S.to(logit_LV.device))
        found = {name: STATISTICS[name](of, measure) for name in (*sorted(measure.want), ALWAYS)}
        offsets = micro_batch["input_ids"].offsets()
        wanted: dict[str, torch.Tensor] = {
            name: torch.nested.nested_tensor_from_jagged(_as_rows(x, packed.lengths_G), offsets) for name, x in found.items()
        }
        wanted["log_probs"] = wanted.pop(ALWAYS)
        if tu.get_non_tensor_data(micro_batch, FINAL_LOGITS, False):
            ends = torch.tensor(packed.lengths_G).cumsum(0) - 1
            wanted[FINAL_LOGITS] = of.scaled_LV[row_S[ends.to(row_S.device)]]
        return wanted


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device=["cpu"])
@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device=["cuda"], vendor=["nvidia"])
class PromptOnceCritic(PromptOnce, FSDPEngineWithValueHead):
    """The critic: the model with a value head, which begins at zero, so that the first values are 0 (derived)."""

    takes_logits_to_keep = False

    def _build_module(self) -> torch.nn.Module:
        """verl's own way asks for flash-attention."""
        config = self.model_config.hf_config
        config.num_labels = 1
        config.classifier_dropout = config.hidden_dropout = config.summary_dropout_prob = 0.0
        dtype = PrecisionType.to_dtype(self.engine_config.model_dtype)
        module = AutoModelForTokenClassification.from_pretrained(
            self.model_config.local_path, dtype=dtype, config=config, trust_remote_code=self.model_config.trust_remote_code
        )
        module.to(dtype)
        with torch.no_grad():
            for parameter in getattr(module, VALUE_HEAD).parameters():
                parameter.zero_()
        if self.model_config.enable_gradient_checkpointing:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return module

    def _build_lora_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """LoRA, and the whole value head: verl's own way wants a language model's head."""
        shape = AdapterShape(**self.model_config.lora)
        return adapted(module, shape, task_type=TaskType.TOKEN_CLS, exclude_modules=[VALUE_HEAD], modules_to_save=[VALUE_HEAD])

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """The value expected before each response token."""
        packed: Packed = output_args[PACKED]
        value_LX, row_S = self.scoring(output.logits, packed)
        value_S = value_LX[row_S, 0].float()
        offsets = micro_batch["input_ids"].offsets()
        return {"values": torch.nested.nested_tensor_from_jagged(_as_rows(value_S, packed.lengths_G), offsets)}


@contextmanager
def one_unit(module: torch.nn.Module) -> Iterator[None]:
    """Have verl shard embeddings and head with the root of the model, as it does where they are tied.

    Otherwise it would shard an embedding that is trained whole and PEFT's wrapper around it, in an order that FSDP2 does not allow.
    """
    config, tied = module.config, module.config.tie_word_embeddings
    config.tie_word_embeddings = True
    try:
        yield
    finally:
        config.tie_word_embeddings = tied


def adapted(module: torch.nn.Module, shape: AdapterShape, **own: Any) -> torch.nn.Module:
    """The model with an adapter of this shape; ``own`` goes to PEFT's configuration.

    What is trained is kept in float32: verl would cast it to the frozen base's dtype, where small steps round away.
    """
    module.enable_input_require_grads()
    settings = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        use_rslora=shape.rank_stabilised,
        target_modules=list(shape.targets) or "all-linear",
        bias="none",
        **own,
    )
    with_adapter = get_peft_model(module, settings)
    for parameter in with_adapter.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return with_adapter


def _as_rows(scores_S: torch.Tensor, lengths_G: tuple[int, ...]) -> torch.Tensor:
    """Add the unused last position of each row."""
    end = scores_S.new_zeros(1)
    return torch.cat([piece for row in scores_S.split(lengths_G) for piece in (row, end)])


def spelled_out(micro_batch: TensorDict, prompt: torch.Tensor, rows: list[torch.Tensor]) -> TensorDict:
    """The micro-batch with its prompt repeated in every row, as verl's own code wants it."""
    sequences = [torch.cat([prompt, row]) for row in rows]
    device = micro_batch["input_ids"].device
    full = micro_batch.clone(recurse=False)
    full["input_ids"] = torch.nested.as_nested_tensor(sequences, layout=torch.jagged).to(device)
    full["position_ids"] = torch.nested.as_nested_tensor([torch.arange(len(s)) for s in sequences], layout=torch.jagged).to(device)
    return full
