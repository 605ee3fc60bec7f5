"""Attention over a packed micro-batch: the prefix attends to itself, and each row attends to the prefix and to itself.

A dense mask over ``[prefix | row 0 | row 1 | ...]`` would cost the square of the whole sequence, and nearly all of it would be masked. Here
the prefix is one causal call. The rows are a batch, padded to the longest, that attends to the prefix's keys and values and to its own. An
input that several rows share is computed in each of them, and the result of the first one is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sttrl.engine.verl.packing import Layout, up_to

NAME = "sttrl_prompt_once"
LAYOUT = "packed_layout"
"""The keyword argument by which the layout reaches every layer. Without it attention is transformers' own ``sdpa``."""
UNABLE = ("sliding_window", "softcap", "s_aux")
"""Keyword arguments of attentions that are not implemented here."""
SHORT = 256
"""Rows up to this length use `ByProducts` on CPU, longer ones torch's kernel, whose backward pass is slow there in bfloat16.

Milliseconds a layer, forward and backward, behind a prefix of 45 tokens, by torch's kernel and by products: 32 rows of 24 tokens 41 and 20;
4 rows of 160 tokens 25 and 21; one row of 640 tokens, of which products also compute the masked half, 48 and 72."""


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
    prompt, groups = slice(0, layout.prompt_length), query.shape[1] // key.shape[1]
    seen = scaled_dot_product_attention(
        query[:, :, prompt], repeat_kv(key[:, :, prompt], groups), repeat_kv(value[:, :, prompt], groups), is_causal=True, scale=scaling
    )
    if not len(layout.place_R):
        return seen.transpose(1, 2).contiguous(), None
    if query.is_cuda or layout.own_GT.shape[1] > SHORT:
        behind = _by_kernel(query[0], key[0], value[0], layout, scaling)
    else:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        behind = ByProducts.apply(query[0], key[0], value[0], layout, scale)
    return torch.cat([seen, behind[None]], dim=2).transpose(1, 2).contiguous(), None


def _by_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scaling: float | None) -> torch.Tensor:
    """Attention of the rows, ``[H, R, D]``, by torch's own kernel. ``query`` ``[H, N, D]``; ``key``, ``value`` ``[K, N, D]``."""
    groups, (count, longest), prompt = len(query) // len(key), layout.own_GT.shape, layout.prompt_length
    filling = up_to(longest, layout.multiple) - longest
    own_GT = torch.cat([layout.own_GT, layout.own_GT[:, -1:].expand(-1, filling)], 1)
    mask_TK = torch.cat(
        [pad(layout.mask_TK[:, : layout.seen], (0, prompt - layout.seen)), pad(layout.mask_TK[:, layout.seen :], (0, filling))], 1
    )
    mask_TK = torch.cat([mask_TK, mask_TK[-1:].expand(filling, -1)])
    keys, values = (
        repeat_kv(torch.cat([x[None, :, :prompt].expand(count, -1, -1, -1), x[:, own_GT].transpose(0, 1)], 2), groups) for x in (key, value)
    )
    own = scaled_dot_product_attention(query[:, own_GT].transpose(0, 1), keys, values, attn_mask=mask_TK, scale=scaling)
    found = own[:, :, :longest].transpose(0, 1).flatten(1, 2)[:, layout.place_R]
    return pad(found, (0, 0, 0, layout.filling))


class ByProducts(torch.autograd.Function):
    """The same by batched matrix products in float32, or float64 where the inputs are. The query heads of a key are one product.

    The backward pass computes the scores again (Dao 2022, algorithm 4, with one block), so a layer keeps only its inputs and its output.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
        """As `_by_kernel`."""
        with torch.autocast(query.device.type, enabled=False):
            rows, keys, values = _rows(query, layout, len(key)), _seen(key, layout), _seen(value, layout)
            weights = _scores(rows, keys, layout, scale)
            most = weights.amax(-1, keepdim=True)
            total = weights.sub_(most).exp_().sum(-1, keepdim=True)
            own = torch.bmm(weights, values).div_(total)
        ctx.save_for_backward(query, key, value, own, most.add_(total.log_()))
        ctx.layout, ctx.scale = layout, scale
        return _behind(own, layout, query)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        """Gradients of query, key and value; padding gets none."""
        query, key, value, own, normaliser = ctx.saved_tensors
        layout: Layout = ctx.layout
        rows, keys, values = _rows(query, layout, len(key)), _seen(key, layout), _seen(value, layout)
        weights = _scores(rows, keys, layout, ctx.scale).sub_(normaliser).exp_()
        grad_own = _rows(grad, layout, len(key), skipped=layout.prompt_length)
        grad_own.view(len(key), *layout.own_GT.shape[:1], -1, layout.own_GT.shape[1], grad.shape[2]).mul_(_real(layout)[:, None, :, None])
        grad_values = torch.bmm(weights.mT, grad_own)
        back = (grad_own * own).sum(-1, keepdim=True)
        grad_scores = torch.bmm(grad_own, values.mT).sub_(back).mul_(weights).mul_(ctx.scale)
        grad_keys = torch.bmm(grad_scores.mT, rows)
        grad_query = torch.zeros_like(query)
        grad_query[:, layout.prompt_length :] = _behind(torch.bmm(grad_scores, keys), layout, query)
        return grad_query, _gathered(grad_keys, layout, key), _gathered(grad_values, layout, value), None, None


def _rows(x_HND: torch.Tensor, layout: Layout, keys: int, skipped: int = 0) -> torch.Tensor:
    """The rows' inputs with the query heads of each key side by side, ``[K G, H/K T, D]``; ``x_HND`` lacks the first ``skipped`` inputs."""
    heads, _, size = x_HND.shape
    count, longest = layout.own_GT.shape
    picked = x_HND.index_select(1, (layout.own_GT - skipped).flatten()).view(keys, heads // keys, count, longest, size)
    ready = picked.transpose(1, 2).to(torch.promote_types(x_HND.dtype, torch.float32), memory_format=torch.contiguous_format)
    return ready.reshape(keys * count, -1, size)


def _seen(x_KND: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The keys or values that each row attends to: ``[K G, S + T, D]``."""
    heads, _, size = x_KND.shape
    count, longest = layout.own_GT.shape
    seen = x_KND.new_empty(heads, count, layout.seen + longest, size, dtype=torch.promote_types(x_KND.dtype, torch.float32))
    seen[:, :, : layout.seen] = x_KND[:, None, : layout.seen]
    seen[:, :, layout.seen :] = x_KND.index_select(1, layout.own_GT.flatten()).view(heads, count, longest, size)
    return seen.flatten(0, 1)


def _scores(rows: torch.Tensor, keys: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
    """Scaled scores ``[K G, H/K T, S + T]``, minus infinity where a row may not look."""
    hidden = torch.zeros_like(layout.mask_TK, dtype=rows.dtype).masked_fill_(~layout.mask_TK, float("-inf"))
    return torch.baddbmm(hidden.repeat(rows.shape[1] // len(hidden), 1), rows, keys.mT, alpha=scale)


def _real(layout: Layout) -> torch.Tensor:
    """1 where ``own_GT`` is an input's first position, else 0."""
    return torch.zeros_like(layout.own_GT, dtype=torch.float32).flatten().index_fill_(0, layout.place_R, 1).view_as(layout.own_GT)


def _behind(rows: torch.Tensor, layout: Layout, like_HND: torch.Tensor) -> torch.Tensor:
    """From ``[K G, H/K T, D]`` to the inputs after the prefix ``[H, R, D]``; padding gets zeros."""
    count, longest = layout.own_GT.shape
    heads, size = len(like_HND), rows.shape[2]
    apart = rows.view(len(rows) // count, count, -1, longest, size).transpose(1, 2)
    flat = apart.to(like_HND.dtype, memory_format=torch.contiguous_format).reshape(heads, -1, size)
    return pad(flat.index_select(1, layout.place_R), (0, 0, 0, layout.filling))


def _gathered(seen: torch.Tensor, layout: Layout, like_KND: torch.Tensor) -> torch.Tensor:
    """The gradient of keys or values ``[K, N, D]``, added up over the rows that attended to them."""
    apart = seen.view(len(like_KND), len(layout.own_GT), -1, seen.shape[2])
    prompt = pad(apart[:, :, : layout.seen].sum(1), (0, 0, 0, layout.prompt_length - layout.seen))
    rows = apart[:, :, layout.seen :].flatten(1, 2)
    own = rows.index_select(1, layout.place_R).index_add_(1, layout.shared_A, rows.index_select(1, layout.again_A))
    return pad(torch.cat([prompt, own], 1), (0, 0, 0, layout.filling)).to(like_KND.dtype)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
