#!/usr/bin/env bash
# The tables of committed runs and of a report, read by pandas and DuckDB with the types of results/schema.json.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
environment=$target/interchange
python3 -c 'import ensurepip, venv' 2>/dev/null || {
  echo "python3 has no venv; install the Debian package python3-venv" >&2
  exit 1
}
if ! cmp --silent tests/interchange/requirements.txt "$environment/requirements.txt"; then
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement tests/interchange/requirements.txt
  cp tests/interchange/requirements.txt "$environment/"
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$target/release/longhaul" report results/reference/quick --out "$out/report" >"$out/said"
"$environment/bin/python" tests/interchange/read.py results/schema.json \
  results/reference/quick results/reference/books results/reference/published "$out/report"
