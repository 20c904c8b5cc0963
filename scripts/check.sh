#!/usr/bin/env bash
# What must hold of the text of the code: its form, its types, its layers. Goes on after a failure, so that one run shows all.
set -uo pipefail
cd "$(dirname "$0")/.."

status=0
check() {
  printf 'check: %s\n' "$*"
  ".venv/bin/$1" "${@:2}" || status=1
}

check ruff format --check .
check ruff check .
check mypy
check lint-imports --no-logo
exit "$status"
