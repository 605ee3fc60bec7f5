#!/usr/bin/env bash
# marc, test_time_train.py: Llama 3 8B, its own text. Each task is trained and searched in one run, and its adapter is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-ekinakyurek/marc-8B-finetuned-llama3}
sttrl --config configs/arc/marc.yaml --model "$MODEL" --output_dir outputs/arc --run_name marc "$@"
