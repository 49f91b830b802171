#!/usr/bin/env bash
# Runs tests with kernels compiled under the address and undefined-behaviour sanitizers, two programs at a time;
# with --races instead every access of a kernel is watched for races and for reads of what nobody wrote, with
# --accesses sectors and turns of banks are counted, and printed by kernel at the end.
# Usage: tests/emulator/sanitize.sh [--races | --accesses] [CRATE [TEST-ARGUMENT]...]
# Without a crate: every crate that has kernels, but for the conformance suite and the tests of whole models'
# memory, which launch the same ones.
set -euo pipefail
cd "$(dirname "$0")/../.."
preload= counted=
case ${1-} in
  --races)
    export LONGHAUL_EMULATOR_RACES=1
    shift ;;
  --accesses)
    counted=$(mktemp -d)
    trap 'rm -rf "$counted"' EXIT
    export LONGHAUL_EMULATOR_ACCESSES=$counted
    shift ;;
  *)
    export LONGHAUL_EMULATOR_SANITIZE=1 ASAN_OPTIONS=detect_leaks=0
    preload="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" ;;
esac
if [ $# -gt 0 ]; then
  crates=("$1")
  shift
  arguments=("$@")
else
  mapfile -t crates < <(grep -l '^longhaul-emulator\.workspace' plugin-kit/Cargo.toml plugins/*/Cargo.toml \
    | xargs sed -n 's/^name = "\(longhaul-.*\)"/\1/p')
  crates+=(longhaul-emulator)
  arguments=(--skip conformance --skip a_device_has_no_buffer)
fi

# "folder program" of each test program. Only these start with the sanitizers, not cargo and rustc. The whole
# workspace's are built, for else its crates have other features and are built again.
programs() {
  local names
  names=$(IFS='|'; echo "${crates[*]}")
  cargo test --release --workspace --no-run --message-format=json 2>/dev/null | grep -E "#($names)@" \
    | sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"executable":"\([^"]*\)".*/\1 \2/p' \
    | grep -v /examples/
}
run() {
  local folder=$1 program=$2
  shift 2
  cd "$folder"
  local output
  if output=$(env ${preload:+LD_PRELOAD="$preload"} "$program" "$@" 2>&1); then
    printf '%s: %s\n' "$(basename "$program")" "$(grep -o 'ok\. [0-9]* passed.*' <<<"$output")"
  else
    printf '%s\n%s FAILED\n' "$output" "$program"
    return 1
  fi
}
export -f run
export preload
listed=$(programs)
xargs -P 2 -I{} bash -c 'run {} "$@"' run "${arguments[@]}" <<<"$listed"
if [ -n "$counted" ]; then
  cargo build --release --quiet --workspace --example accesses
  "${CARGO_TARGET_DIR:-target}/release/examples/accesses" "$counted" 2
fi
