"""verl's FSDP engine with the prompt computed once, registered for CPU and, with a vendor key, for CUDA.

Rows carry the last prompt token and the response; the rest of the prompt travels beside them once
(``SHARED_PROMPT``). `prepare_model_inputs` packs them behind one copy of the prompt, or, for a model whose attention
cannot take a tree mask, spells every row out and lets verl's own code run.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils import torch_functional as verl_F
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from sttrl.engine.packing import Packed, pack

SHARED_PROMPT = "shared_prompt"
PACKED = "packed"
SPELLED_OUT = "spelled_out"


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu"])
@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cuda"], vendor=["nvidia"])
class PromptOnceEngine(FSDPEngineWithLMHead):
    """Outputs are verl's: nested tensors as long as the rows, the score of a row's token t at position t - 1."""

    packs = True

    def _build_lora_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Keep the adapter in float32: verl casts it to the frozen base's dtype, where small steps round away."""
        module = super()._build_lora_module(module)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return module

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Pack the micro-batch behind its prompt, or spell its rows out."""
        prompt = torch.tensor(tu.get_non_tensor_data(micro_batch, SHARED_PROMPT, ()), dtype=torch.long)
        rows = [row.cpu() for row in micro_batch["input_ids"].unbind()]
        if not self.packs:
            full = spelled_out(micro_batch, prompt, rows)
            inputs, output_args = super().prepare_model_inputs(full)
            return inputs, output_args | {SPELLED_OUT: full}
        packed = pack(torch.cat([prompt, rows[0][:1]]), [row[1:] for row in rows])
        device = micro_batch["input_ids"].device
        inputs = {
            "input_ids": packed.input_N[None].to(device),
            "position_ids": packed.position_N[None].to(device),
            "attention_mask": packed.mask_NN[None, None].to(device),
            "logits_to_keep": packed.logit_L.to(device),
        }
        return inputs, {PACKED: packed}

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Log-probs (and entropy on request) of the response tokens."""
        if SPELLED_OUT in output_args:
            whole = super().prepare_model_outputs(output, output_args, output_args[SPELLED_OUT], logits_processor_func)
            return {name: _last(value, micro_batch["input_ids"]) for name, value in whole.items()}
        packed: Packed = output_args[PACKED]
        temperature = float(tu.get_non_tensor_data(micro_batch, "temperature", 1.0))
        logits = (output.logits[0].float() / temperature)[packed.row_S.to(output.logits.device)]
        wanted = {"log_probs": verl_F.logprobs_from_logits(logits, packed.label_S.to(logits.device))}
        if tu.get_non_tensor_data(micro_batch, "calculate_entropy", False):
            wanted["entropy"] = self.compute_entropy_from_logits(logits)
        offsets = micro_batch["input_ids"].offsets()
        return {name: torch.nested.nested_tensor_from_jagged(_as_rows(value, packed.lengths_G), offsets) for name, value in wanted.items()}


def _as_rows(scores_S: torch.Tensor, lengths_G: tuple[int, ...]) -> torch.Tensor:
    """Add the unused last position of each row."""
    end = scores_S.new_zeros(1)
    return torch.cat([piece for row in scores_S.split(lengths_G) for piece in (row, end)])


def _last(value: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Keep of each spelled-out sequence the positions of its row."""
    lengths = rows.offsets().diff().tolist()
    kept = [sequence[-length:] for sequence, length in zip(value.unbind(), lengths, strict=True)]
    return torch.nested.nested_tensor_from_jagged(torch.cat(kept), rows.offsets())


def spelled_out(micro_batch: TensorDict, prompt: torch.Tensor, rows: list[torch.Tensor]) -> TensorDict:
    """The micro-batch with its prompt repeated in every row, as verl's own code wants it."""
    sequences = [torch.cat([prompt, row]) for row in rows]
    device = micro_batch["input_ids"].device
    full = micro_batch.clone(recurse=False)
    full["input_ids"] = torch.nested.as_nested_tensor(sequences, layout=torch.jagged).to(device)
    full["position_ids"] = torch.nested.as_nested_tensor([torch.arange(len(s)) for s in sequences], layout=torch.jagged).to(device)
    return full
