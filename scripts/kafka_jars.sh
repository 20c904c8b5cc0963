#!/usr/bin/env bash
# Copies the jars of the test broker into .cache/kafka/libs, by the coordinates in tests/kafka/pom.xml.
# Nothing happens when they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

pom=tests/kafka/pom.xml
libs=.cache/kafka/libs
stamp=.cache/kafka/pom.sha256

if [ -f "$stamp" ] && sha256sum --check --status "$stamp"; then
  exit 0
fi

printf 'setup: fetching the jars of Apache Kafka for the tests (about 40 MB)\n'
rm -rf "$libs"
mkdir -p "$libs"
mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$PWD/$libs" \
  < /dev/null > .cache/kafka/mvn.log 2>&1 || { tail -30 .cache/kafka/mvn.log; exit 3; }
sha256sum "$pom" > "$stamp"
