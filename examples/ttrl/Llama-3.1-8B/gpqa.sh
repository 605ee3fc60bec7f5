#!/usr/bin/env bash
# TTRL on GPQA-TTT with meta-llama/Llama-3.1-8B-Instruct.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --config configs/paper/gpqa_llama-3.1-8b-instruct_ttrl.yaml "$@"
