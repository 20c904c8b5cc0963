#!/usr/bin/env bash
# Removes what can be made again: .venv, jars, caches, compiled kernels.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
