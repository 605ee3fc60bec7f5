#!/usr/bin/env bash
# TTFT on AMC-TTT, question by question.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --dataset AMC-TTT --model Qwen/Qwen2.5-Math-1.5B --voting_function majority --adaptation_method ttft --lr 1e-4 "$@"
