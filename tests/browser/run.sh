#!/usr/bin/env bash
# Makes reports of committed and of changed runs and opens their pages in Chromium, without a window. Needs Chromium and
# npm (Debian: chromium, nodejs, npm); playwright-core and axe-core are installed under target/ from the lock file here.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in chromium node npm; do
  if ! command -v "$program" >/dev/null; then
    echo "$program is missing; install it: apt-get install chromium nodejs npm" >&2
    exit 1
  fi
done
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --quiet --package longhaul
work=$target/browser
mkdir -p "$work"
# The script is run where its packages are.
cp tests/browser/package.json tests/browser/package-lock.json tests/browser/*.mjs "$work"
if ! cmp --silent tests/browser/package-lock.json "$work/installed.json"; then
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error
  cp tests/browser/package-lock.json "$work/installed.json"
fi
export LONGHAUL=$target/release/longhaul REFERENCE=$PWD/results/reference CHROMIUM
CHROMIUM=$(command -v chromium)
node --test "$work/page.test.mjs"
