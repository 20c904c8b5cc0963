#!/usr/bin/env bash
# Copies the jars of the servers that tests start, Apache Kafka and S3Proxy, into .cache/<server>/libs, by the coordinates
# in tests/<server>/pom.xml. Nothing happens when they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

fetch() {
  local server=$1 what=$2
  local pom=tests/$server/pom.xml cache=.cache/$server
  if [ -f "$cache/pom.sha256" ] && sha256sum --check --status "$cache/pom.sha256"; then
    return
  fi
  printf 'setup: fetching the jars of %s for the tests\n' "$what"
  rm -rf "$cache/libs"
  mkdir -p "$cache/libs"
  mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$PWD/$cache/libs" \
    < /dev/null > "$cache/mvn.log" 2>&1 || { tail -30 "$cache/mvn.log"; exit 3; }
  sha256sum "$pom" > "$cache/pom.sha256"
}

fetch kafka 'Apache Kafka (about 40 MB)'
fetch s3 'S3Proxy (about 30 MB)'
