#!/usr/bin/env bash
# Runs a crate's tests with kernels compiled under the address and undefined-behaviour sanitizers.
# Usage: tests/emulator/sanitize.sh CRATE [TEST-NAME-PART]...
set -euo pipefail
cd "$(dirname "$0")/../.."
crate=${1:?a crate, such as longhaul-mamba2}
shift
export LONGHAUL_EMULATOR_SANITIZE=1
# The sanitizers go to the tests only: cargo and rustc do not start with them.
programs=$(cargo test --release --package "$crate" --no-run --message-format=json 2>/dev/null \
  | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
folder=$(cargo metadata --no-deps --format-version 1 | tr ',' '\n' | sed -n "s|.*\"manifest_path\":\"\(.*/\)Cargo.toml\".*|\1|p" | while read -r path; do
  if grep -q "^name = \"$crate\"" "$path/Cargo.toml"; then echo "$path"; fi
done)
preload="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
cd "$folder"
for program in $programs; do
  echo "== $program"
  ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$preload" "$program" "$@"
done
