#!/usr/bin/env bash
# Writes requirements.lock anew from pyproject.toml: every package that runs, tests or builds woolwatch, with hashes.
# One version of a package serves every Python (fewest forks): numbers must not depend on the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

uv pip compile pyproject.toml --extra demo --group dev --output-file requirements.lock \
  --universal --python-version 3.11 --fork-strategy fewest --generate-hashes "$@" \
  --no-annotate --custom-compile-command scripts/lock.sh --quiet
