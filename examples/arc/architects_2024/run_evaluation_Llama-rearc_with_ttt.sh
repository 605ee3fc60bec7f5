#!/usr/bin/env bash
# ARChitects 2024, run_evaluation_Llama-rearc_with_ttt.py: one adapter for the set; then what every selection scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Llama-3.2-3B-ReArc-merged}
sttrl --config configs/arc/architects_2024.yaml --model "$MODEL" --output_dir outputs/arc --run_name Llama-rearc_with_ttt "$@"
sttrl pool outputs/arc/Llama-rearc_with_ttt --selection mul_all_prob --out outputs/arc/Llama-rearc_with_ttt_submission
