#!/usr/bin/env bash
# Makes everything ready to run and test woolwatch: system programs, .venv, the jars of the test broker. With the
# argument program only what woolwatch and its demo need, which is Python: a broker and a Redis come with its packages.
# Asks nothing, and does nothing when nothing changed. Exit 3: something is missing that only root may install.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-all}

say() { printf 'setup: %s\n' "$*"; }

# Ctrl-C goes to all of us; bash waits for the program that runs and then comes here.
trap 'say "ended by SIGINT"; exit 130' INT

# Run a program; what it complains of is shown if it fails, but not what Python has to say about Ctrl-C.
run() {
  "$@" 2> .cache/setup.log || { cat .cache/setup.log >&2; exit 3; }
}

# A Python of 3.11 or newer that can make virtual environments; 3.11 first, because that is what CI runs.
find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  return 1
}

has_java() {
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  [ -n "$major" ] && [ "$major" -ge 17 ]
}

# The first of these packages that this release of Debian or Ubuntu has.
available() {
  local package
  for package in "$@"; do
    if apt-cache show "$package" >/dev/null 2>&1; then
      break
    fi
  done
  printf '%s\n' "$package"
}

missing_packages() {
  find_python >/dev/null || available python3.11-venv python3-venv
  if [ "$purpose" = program ]; then
    return
  fi
  has_java || available openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless
  command -v mvn >/dev/null || printf 'maven\n'
  command -v redis-server >/dev/null || printf 'redis-server\n'
}

install_system() {
  local packages
  if [ -z "$(missing_packages)" ]; then
    return
  fi
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    mapfile -t packages < <(missing_packages)
    say 'this machine lacks programs that only root may install. Run this, then the same again:'
    say "    sudo apt-get update && sudo apt-get install -y ${packages[*]}"
    exit 3
  fi
  say 'reading the list of system packages'
  apt-get update -qq
  mapfile -t packages < <(missing_packages)
  say "installing ${packages[*]} (some minutes)"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
    < /dev/null > .cache/apt.log 2>&1 || { tail -30 .cache/apt.log; exit 3; }
  if [ -n "$(missing_packages)" ]; then
    say "still missing after the installation: $(missing_packages | tr '\n' ' ')"
    exit 3
  fi
}

install_python() {
  local python=.venv/bin/python stamp=.venv/woolwatch.sha256
  if "$python" -c '' 2>/dev/null && sha256sum --check --status "$stamp" 2>/dev/null; then
    return
  fi
  if ! "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making .venv with $(find_python)"
    run "$(find_python)" -m venv --clear .venv
  fi
  say "installing $(grep -c '==' requirements.lock) Python packages (a minute or two)"
  run "$python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --requirement requirements.lock
  run "$python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --no-build-isolation --editable .
  sha256sum requirements.lock pyproject.toml > "$stamp"
}

compile_kernels() {
  local python=.venv/bin/python
  if ! "$python" -c 'import sys; from streams.kernel_cache import is_warm, use_kernel_cache
sys.exit(not is_warm(use_kernel_cache()))' 2>/dev/null; then
    say 'compiling the kernels (a minute, once for each version)'
    run "$python" -m streams.warm_up > /dev/null
  fi
}

mkdir -p .cache
install_system
install_python
if [ "$purpose" != program ]; then
  scripts/test_jars.sh
fi
compile_kernels
