"""Names that learner, sampler and vLLM's processes share."""

from __future__ import annotations

from typing import Final

EXTRA_KEY: Final = "sttrl"
TOP: Final = "top_logprobs"
LOWEST: Final = "lowest_logprob"
STOP: Final = "stop_token_id"
BIAS: Final = "logit_bias"
BIAS_FILE: Final = "vector.safetensors"
