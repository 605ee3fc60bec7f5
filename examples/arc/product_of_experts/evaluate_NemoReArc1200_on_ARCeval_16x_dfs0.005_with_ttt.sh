#!/usr/bin/env bash
# Product of Experts, evaluate_NemoReArc1200_on_ARCeval_16x_dfs0.005_with_ttt.py: an adapter for each task.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/NeMo-Minitron-8B-ReArc1200-merged}
RUN=output_evaluate_NemoReArc1200_on_ARCeval_16x_dfs0.005_with_ttt
sttrl --config configs/arc/product_of_experts.yaml --model "$MODEL" --output_dir outputs/arc --run_name "$RUN" --min_prob 0.005 "$@"
sttrl pool "outputs/arc/$RUN" --selection mul_aug_prob --out "outputs/arc/${RUN}_submission"
