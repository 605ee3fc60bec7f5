#!/usr/bin/env bash
# ARChitects 2024, run_evaluation_Llama-rearc_without_ttt.py: the fine-tuned model alone; then what every selection scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Llama-3.2-3B-ReArc-merged}
sttrl --dataset ARC-AGI-1-evaluation --model "$MODEL" --adaptation_method none --codec cells --views 16 --view_colours any --min_prob 0.1 \
  --score_views 8 --selection mul_all_prob --output_dir outputs/arc --run_name Llama-rearc_without_ttt "$@"
sttrl pool outputs/arc/Llama-rearc_without_ttt --stage base --out outputs/arc/Llama-rearc_without_ttt_submission
