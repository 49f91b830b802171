#!/usr/bin/env bash
# Where a command's time goes by operation: `longhaul bench` on one thread under perf, in a build of its own that keeps
# symbols and frames, then tokens a second on one thread and two. See by_operation.py for the table's columns.
# Usage: bench/profile.sh --arch transformer --mode step --batch 1      needs perf (Debian: linux-perf)
#        bench/profile.sh all         every row of the speed table of bench/README.md
set -euo pipefail
cd "$(dirname "$0")/.."
command -v perf >/dev/null || { echo "profile.sh: perf is not installed (Debian: apt-get install linux-perf)" >&2; exit 2; }
export CARGO_PROFILE_RELEASE_DEBUG=1 CARGO_PROFILE_RELEASE_STRIP=false CARGO_TARGET_DIR=target/profile
RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release --quiet
longhaul=$CARGO_TARGET_DIR/release/longhaul

speed() { "$longhaul" bench "$@" | sed -n 's/.*"tokens_per_second":\([0-9]*\).*/\1/p'; }

profile() {
  perf record --quiet --freq 1999 --call-graph fp --output "$CARGO_TARGET_DIR/perf.data" "$longhaul" bench "$@" --threads 1 >/dev/null
  perf script --input "$CARGO_TARGET_DIR/perf.data" --fields ip,sym 2>/dev/null | python3 bench/by_operation.py "$*"
  printf '\n%s tokens/s on one thread, %s on two\n\n' "$(speed "$@" --threads 1)" "$(speed "$@" --threads 2)"
}

if [ "${1-}" != all ]; then
  profile "$@"
  exit
fi
python3 bench/rows.py | while read -ra words; do profile "${words[@]}" </dev/null; done
