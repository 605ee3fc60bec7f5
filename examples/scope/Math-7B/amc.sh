#!/usr/bin/env bash
# SCOPE on AMC-TTT with Qwen/Qwen2.5-Math-7B.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --config configs/paper/amc_qwen2.5-math-7b_scope.yaml "$@"
