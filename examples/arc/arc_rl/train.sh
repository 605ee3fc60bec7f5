#!/usr/bin/env bash
# arc_rl, grpo/train.py: GRPO on the held-out demonstrations of each task; then what every selection scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Llama-3.2-3B-ReArc-merged}
sttrl --config configs/arc/arc_rl.yaml --model "$MODEL" --output_dir outputs/arc --run_name arc_rl "$@"
sttrl pool outputs/arc/arc_rl --selection mul_aug_prob --out outputs/arc/arc_rl_submission
