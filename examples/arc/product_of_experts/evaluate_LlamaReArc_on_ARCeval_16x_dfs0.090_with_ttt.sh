#!/usr/bin/env bash
# Product of Experts, evaluate_LlamaReArc_on_ARCeval_16x_dfs0.090_with_ttt.py: an adapter for each task; then what every selection scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Llama-3.2-3B-ReArc-merged}
RUN=output_evaluate_LlamaReArc_on_ARCeval_16x_dfs0.090_with_ttt
sttrl --config configs/arc/product_of_experts.yaml --model "$MODEL" \
  --output_dir outputs/arc --run_name "$RUN" --max_prompt_tokens 15452 "$@"
sttrl pool "outputs/arc/$RUN" --selection mul_aug_prob --out "outputs/arc/${RUN}_submission"
