#!/usr/bin/env bash
# A contest machine: four lanes, twelve hours less a margin. CHALLENGES is the contest's file. outputs/arc/kaggle_2026/submission.json is
# what is handed in; with the candidates in the run folder `main.py pool` selects again, without a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Qwen3-4B-16-nvarc}
CHALLENGES=${CHALLENGES:-ARC-AGI-2-evaluation}
sttrl --config configs/arc/kaggle_2026.yaml --model "$MODEL" --dataset "$CHALLENGES" --output_dir outputs/arc --run_name kaggle_2026 "$@"
