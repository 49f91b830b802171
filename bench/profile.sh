#!/usr/bin/env bash
# Where a plugin's time goes: `longhaul bench` under perf, in a build of its own that keeps symbols.
# Usage: bench/profile.sh --arch transformer --mode step --batch 1      needs perf (Debian: linux-perf)
set -euo pipefail
cd "$(dirname "$0")/.."
command -v perf >/dev/null || { echo "profile.sh: perf is not installed (Debian: apt-get install linux-perf)" >&2; exit 2; }
export CARGO_PROFILE_RELEASE_DEBUG=1 CARGO_PROFILE_RELEASE_STRIP=false CARGO_TARGET_DIR=target/profile
cargo build --release --quiet
perf record --quiet --output target/profile/perf.data target/profile/release/longhaul bench "$@" >/dev/null
perf report --input target/profile/perf.data --no-children --stdio 2>/dev/null \
  | sed -n 's/^ *\([0-9.]*%\) *[^ ]* *\([^ ]*\) *\[[.k]\] \(.*\)$/\1\t\2\t\3/p' | sed -n 1,15p
