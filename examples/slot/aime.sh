#!/usr/bin/env bash
# SLOT on AIME-TTT, question by question.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --dataset AIME-TTT --model Qwen/Qwen2.5-Math-1.5B --adaptation_method slot "$@"
