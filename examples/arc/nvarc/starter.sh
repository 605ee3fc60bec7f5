#!/usr/bin/env bash
# NVARC, starter.py: an adapter for each task, and its selection; then what every selection scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Qwen3-4B-16-nvarc}
sttrl --config configs/arc/nvarc.yaml --model "$MODEL" --output_dir outputs/arc --run_name nvarc "$@"
sttrl pool outputs/arc/nvarc --selection kgmon --out outputs/arc/nvarc_submission
