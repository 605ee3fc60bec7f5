"""Attention over a packed micro-batch: the prompt once, and each response over the prompt and itself.

A dense tree mask over ``[prompt | response 0 | response 1 | ...]`` costs the square of the whole sequence, and nearly all of it
is masked. Here the prompt attends to itself in one causal call, and the responses, as a batch padded to the longest, attend
to the prompt's keys and values and their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sttrl.engine.packing import Layout

NAME = "sttrl_prompt_once"
LAYOUT = "packed_layout"
"""Keyword by which a model passes the layout on to its layers; without it attention is transformers' own ``sdpa``."""
UNABLE = ("sliding_window", "softcap", "s_aux")
"""What some models ask of their attention and is not done here."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers'. ``query`` ``[B, H, N, D]``, ``key``, ``value`` ``[B, K, N, D]``; returns ``[B, N, H, D]``.

    Raises ValueError for an attention that packing does not know.
    """
    layout: Layout | None = kwargs.pop(LAYOUT, None)
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if any(kwargs.get(name) is not None for name in UNABLE) or dropout:
        raise ValueError("this attention cannot be packed")
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    prompt = slice(0, layout.prompt_length)
    seen = scaled_dot_product_attention(query[:, :, prompt], key[:, :, prompt], value[:, :, prompt], is_causal=True, scale=scaling)
    if not len(layout.place_R):
        return seen.transpose(1, 2).contiguous(), None
    keys, values = (torch.cat([_for_each(x[:, :, prompt], layout), _rows(x, layout)], dim=2) for x in (key, value))
    own = scaled_dot_product_attention(_rows(query, layout), keys, values, attn_mask=layout.mask_TK, scale=scaling)
    flat = own.transpose(0, 1).flatten(1, 2)[None, :, layout.place_R]
    return torch.cat([seen, flat], dim=2).transpose(1, 2).contiguous(), None


def _rows(x_BHND: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The responses' positions as a batch: ``[G, H, T, D]``."""
    return x_BHND[0][:, layout.own_GT].transpose(0, 1)


def _for_each(x_BHPD: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The prompt's keys or values, shared by every response: ``[G, H, P, D]``."""
    return x_BHPD.expand(len(layout.own_GT), -1, -1, -1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
