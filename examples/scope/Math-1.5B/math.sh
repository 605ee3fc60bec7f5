#!/usr/bin/env bash
# SCOPE on MATH-TTT with Qwen/Qwen2.5-Math-1.5B.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --config configs/paper/math_qwen2.5-math-1.5b_scope.yaml "$@"
