#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs into a folder that can be copied to a machine with a card: the program, the
# plugins, kernel_speed (all stripped and in one archive, which run.sh unpacks), the scripts and the small checkpoints.
#
# usage: tests/gpu/pack.sh OUT_DIR [--from DIR] [--with-fla]
#   --from DIR   build nothing, take what is in DIR, such as target/release
#   --with-fla   install flash-linear-attention, which is pure Python, into OUT_DIR/peers (needs pip and a network)
set -euo pipefail

most_mib=60
plugins=(delta griffin hybrid hyena linear_attention lstm mamba mamba2 min_rnn rwkv s4 transformer ttt xlstm)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }

out='' from='' fla=no
while [ $# -gt 0 ]; do
  case $1 in
    --from) [ $# -ge 2 ] || usage; from=$2; shift ;;
    --with-fla) fla=yes ;;
    -*) echo "pack.sh: $1 is unknown" >&2; usage ;;
    *) [ -z "$out" ] || usage; out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || usage
mkdir -p "$out"
out=$(cd "$out" && pwd)

if [ -z "$from" ]; then
  (cd "$root" && cargo build --release && cargo build --release --workspace --example kernel_speed)
  from=${CARGO_TARGET_DIR:-$root/target}/release
fi

binaries=("$from/longhaul" "$from/examples/kernel_speed")
for plugin in "${plugins[@]}"; do binaries+=("$from/liblonghaul_$plugin.so"); done
for file in "${binaries[@]}"; do
  [ -f "$file" ] || { echo "pack.sh: $file is not there; build it, or run without --from" >&2; exit 1; }
  install -m 755 "$file" "$out/"
  # Release builds are stripped already; a profile that is not is made so here.
  if command -v strip > /dev/null; then strip --strip-unneeded "$out/$(basename "$file")"; fi
done
install -m 755 "$here/run.sh" "$out/"
install -m 644 "$here"/*.py "$here/README.md" "$out/"
rm -rf "$out/checkpoints"
mkdir "$out/checkpoints"
for folder in "$root"/tests/checkpoints/*/; do cp -r "$folder" "$out/checkpoints/"; done
rm -rf "$out/peers"
if [ $fla = yes ]; then
  python3 -m pip install --quiet --no-deps --no-compile --target "$out/peers" flash-linear-attention fla-core einops packaging
  rm -rf "$out/peers/bin" "$out/peers/einops/tests"
fi
{
  echo "commit $(git -C "$root" rev-parse HEAD 2> /dev/null || echo unknown)"
  (cd "$out" && sha256sum longhaul kernel_speed liblonghaul_*.so)
} > "$out/BUILD.txt"

(cd "$out" && tar --create --gzip --file binaries.tar.gz longhaul kernel_speed liblonghaul_*.so)
(cd "$out" && tar --list --verbose --gzip --file binaries.tar.gz && rm -f longhaul kernel_speed liblonghaul_*.so)
(cd "$out" && du -sk --apparent-size -- * | sort -rn)
kib=$(du -sk --apparent-size "$out" | cut -f1)
echo "$out: $((kib / 1024)) MiB of at most $most_mib"
if [ "$kib" -gt $((most_mib * 1024)) ]; then
  echo "pack.sh: $out is too large; leave out --with-fla, or see which file grew" >&2
  exit 1
fi
