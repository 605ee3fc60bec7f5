#!/usr/bin/env bash
# marc, test_time_train.py: BARC's model and text. Each task is trained and searched in one run, and its adapter is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-barc0/Llama-3.1-ARC-Potpourri-Transduction-8B}
sttrl --config configs/arc/marc_barc.yaml --model "$MODEL" --output_dir outputs/arc --run_name marc_barc "$@"
