#!/usr/bin/env bash
# TTRL on GPQA-TTT with Qwen/Qwen2.5-7B.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --config configs/paper/gpqa_qwen2.5-7b_ttrl.yaml "$@"
