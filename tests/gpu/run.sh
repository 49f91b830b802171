#!/usr/bin/env bash
# Checks and times Longhaul on a machine with a card. It needs a folder that tests/gpu/pack.sh made (or a built checkout),
# NVIDIA's driver, CUDA 13's NVRTC and cuBLASLt, and python3; throughput and kernels also need PyTorch.
#
# usage: run.sh [--build DIR] [--out DIR] [--device cuda:0] [--quick | --tiny] [--only STAGE,...] [--archs A,...]
#               [--widths D,...] [--products P,...] [--forms F,...] [--dry-run]
#   --build DIR    where longhaul and the plugins are [default: this folder, or the checkout's target/release]
#   --out DIR      where tables go [default: results/gpu/CARD]; tables that are there are continued
#   --device       the card, or cpu to try the script itself
#   --quick        fewer sizes
#   --tiny         the smallest sizes: shows that everything runs, measures nothing
#   --only         some of: devices check checkpoints sanitizer suite throughput kernels long
#   --archs        check, sanitizer and throughput of these only
#   --widths, --products, --forms
#                  throughput of these only
#   --dry-run      print what would run
# Rows of check, sanitizer and throughput that are there and ok are not made again, and suite goes on where it stopped:
# the same call once more does what is left.
# Every stage runs, whatever became of the one before. The exit code is 1 where one failed, 2 for a wrong call.
set -uo pipefail

all_stages=(devices check checkpoints sanitizer suite throughput kernels long)
here=$(cd "$(dirname "$0")" && pwd)
build='' out='' device=cuda:0 size=full only='' archs='' widths='' products='' forms='' dry=no

usage() { sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2; }
value() { [ $# -ge 2 ] || { echo "run.sh: $1 has no value" >&2; usage; }; }

while [ $# -gt 0 ]; do
  case $1 in
    --build) value "$@"; build=$2; shift ;;
    --out) value "$@"; out=$2; shift ;;
    --device) value "$@"; device=$2; shift ;;
    --only) value "$@"; only=$2; shift ;;
    --archs) value "$@"; archs=$2; shift ;;
    --widths) value "$@"; widths=$2; shift ;;
    --products) value "$@"; products=$2; shift ;;
    --forms) value "$@"; forms=$2; shift ;;
    --quick) size=quick ;;
    --tiny) size=tiny ;;
    --dry-run) dry=yes ;;
    *) echo "run.sh: $1 is unknown" >&2; usage ;;
  esac
  shift
done
IFS=, read -ra stages <<< "${only:-$(IFS=,; echo "${all_stages[*]}")}"
for stage in "${stages[@]}"; do
  [[ " ${all_stages[*]} " == *" $stage "* ]] || { echo "run.sh: no stage $stage" >&2; usage; }
done

# The program, its plugins and fixtures. ------------------------------------------------------------------------------
if [ -z "$build" ] && [ -f "$here/binaries.tar.gz" ] && [ "$here/binaries.tar.gz" -nt "$here/unpacked" ]; then
  tar --extract --gzip --file "$here/binaries.tar.gz" --directory "$here" || exit 2
  touch "$here/unpacked"
fi
if [ -z "$build" ]; then
  if [ -x "$here/longhaul" ]; then build=$here; else build=$here/../../target/release; fi
fi
build=$(cd "$build" 2> /dev/null && pwd) || { echo "run.sh: there is no folder to take longhaul from; name it with --build" >&2; exit 2; }
export LONGHAUL=$build/longhaul
[ -x "$LONGHAUL" ] || { echo "run.sh: $LONGHAUL is not there; make the folder with tests/gpu/pack.sh" >&2; exit 2; }
KERNEL_SPEED=$build/kernel_speed
[ -x "$KERNEL_SPEED" ] || KERNEL_SPEED=$build/examples/kernel_speed
export KERNEL_SPEED
checkpoints=$here/checkpoints
[ -d "$checkpoints" ] || checkpoints=$here/../checkpoints
libraries=("$build"/liblonghaul_*.so)

# Python: PYTHON, or the first python3 that has PyTorch, or else any. --------------------------------------------------
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3 /opt/conda/bin/python3 /opt/venv/bin/python3 /usr/bin/python3; do
    command -v "$candidate" > /dev/null || continue
    [ -n "$python" ] || python=$candidate
    if "$candidate" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || { echo "run.sh: no python3; set PYTHON to one" >&2; exit 2; }
has_torch() { "$python" -c 'import torch' 2> /dev/null; }

# CUDA's libraries: where the loader finds them, or inside the Python environment. -------------------------------------
cuda_folders=$("$python" - << 'PYTHON'
import ctypes, glob, os, site, sysconfig

places = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()}
found = []
for name in ("libnvrtc.so.13", "libcublasLt.so.13"):
    try:
        ctypes.CDLL(name)
        continue
    except OSError:
        pass
    wheels = [path for place in sorted(places) for path in glob.glob(f"{place}/nvidia/*/lib/{name}")]
    for path in [*wheels, *glob.glob(f"/usr/local/cuda*/lib64/{name}"), *glob.glob(f"/usr/local/cuda*/targets/*/lib/{name}")][:1]:
        if os.path.dirname(path) not in found:
            found.append(os.path.dirname(path))
print(":".join(found))
PYTHON
)
[ -z "$cuda_folders" ] || export LD_LIBRARY_PATH=$cuda_folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[ ! -d "$here/peers" ] || export PYTHONPATH=$here/peers${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1
# Checks are strict; what is timed says how it multiplies.
unset LONGHAUL_PRODUCTS
{ read -r card; read -r driver; } < <("$python" "$here/common.py" "$device")
name=$(tr -cs 'A-Za-z0-9.\n' - <<< "${card:-unknown}")
out=${out:-results/gpu/$name}
if [ $dry = no ]; then
  mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Compiled kernels, PyTorch's included, stay between calls.
cache=$build/cache
if [ "$device" = cpu ] || ! mkdir -p "$cache" 2> /dev/null; then cache=$work/cache; fi
export LONGHAUL_KERNEL_CACHE=${LONGHAUL_KERNEL_CACHE:-$cache/longhaul} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$cache/triton}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$cache/inductor}

# Prints a command with --dry-run, else runs it.
go() {
  if [ $dry = yes ]; then printf '  %s\n' "$*"; else "$@"; fi
}
script() { local file=$1; shift; go "$python" "$here/$file" --device "$device" "$@"; }

# What the driver serves, and which files the loader opens under CUDA's names, in the order in which Longhaul asks for them:
# a stub or an older library that is found first shows here.
opened() {
  "$python" - << 'PYTHON'
import ctypes

def opened(*names):
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        with open("/proc/self/maps") as maps:
            files = {line.split(None, 5)[5].strip() for line in maps if len(line.split(None, 5)) == 6}
        new = sorted(files - opened.before)
        opened.before |= files
        return library, new[0] if len(new) == 1 else ", ".join(new) or "the same file again"
    return None, "not found"

with open("/proc/self/maps") as maps:
    opened.before = {line.split(None, 5)[5].strip() for line in maps if len(line.split(None, 5)) == 6}
driver, path = opened("libcuda.so", "libcuda.so.1")
version = ctypes.c_int(0)
if driver is not None and driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
    print(f"cuDriverGetVersion {version.value // 1000}.{version.value % 1000 // 10}")
print(f"libcuda: {path}")
for name in ("libnvrtc", "libcublasLt"):
    print(f"{name}: {opened(f'{name}.so', f'{name}.so.13')[1]}")
PYTHON
}

# Stages. -------------------------------------------------------------------------------------------------------------
devices() {
  go "$LONGHAUL" devices || return 1
  [ $dry = no ] || return 0
  "$LONGHAUL" devices > "$out/devices.txt"
  if [ "$device" != cpu ]; then opened | tee -a "$out/devices.txt"; fi
  {
    echo "card $card, driver $driver, $(date -u +%FT%TZ)"
    if command -v nvidia-smi > /dev/null; then nvidia-smi; fi
    cat "$build/BUILD.txt" 2> /dev/null
  } > "$out/machine.txt"
  [ "$device" = cpu ] || grep -q "^ *$device " "$out/devices.txt" || { echo "  $device is not among them"; return 1; }
}

check() {
  local words=(${archs:+--archs "$archs"})
  if [ $size = tiny ]; then
    script checks.py --csv "$out/checks.csv" --only parameters --only training "$build/liblonghaul_lstm.so"
  else
    script checks.py --csv "$out/checks.csv" ${words[@]+"${words[@]}"} "${libraries[@]}"
  fi
}

checkpoints() {
  local wrong=0 folder folders=("$checkpoints"/*/)
  [ $size != tiny ] || folders=("$checkpoints/mamba2-tied/")
  for folder in "${folders[@]}"; do
    if [ $dry = yes ]; then
      go "$LONGHAUL" checkpoint verify "$folder" --device "$device"
      continue
    fi
    if timeout 120 "$LONGHAUL" checkpoint verify "$folder" --device "$device" > "$work/checkpoint.txt" 2>&1; then
      echo "  $(basename "$folder"): ok"
    else
      wrong=1
      echo "  $(basename "$folder"): FAILED"
      tail -20 "$work/checkpoint.txt"
    fi
    { echo "== $(basename "$folder")"; cat "$work/checkpoint.txt"; } >> "$out/checkpoints.txt"
  done
  return $wrong
}

sanitizer() {
  local words=(${archs:+--archs "$archs"}) program='' place
  case $size in
    quick) words=(--archs "${archs:-lstm,mamba2,transformer}" --limit 60) ;;
    tiny) words=(--archs lstm --tools memcheck) ;;
  esac
  local packages
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for place in "$(command -v compute-sanitizer)" {/usr/local/cuda*,/opt/cuda*,"$packages"/nvidia/*}/bin/compute-sanitizer; do
    if [ -n "$place" ] && [ -x "$place" ]; then program=$place; break; fi
  done
  if [ -z "$program" ] && [ $dry = no ]; then
    echo "  skipped: no compute-sanitizer on PATH, in /usr/local/cuda*/bin or of pip's nvidia-cuda-sanitizer-api"
    return 3
  fi
  script sanitizer.py --program "${program:-compute-sanitizer}" --csv "$out/sanitizer.csv" ${words[@]+"${words[@]}"}
}

suite() {
  local words=(--jobs 4)
  [ $size != tiny ] || words=(--jobs 1 --arch lstm --task induction --lengths 16,32 --train-length 16 --steps 2 --batch 2 --samples 2 --d-model 8 --layers 1)
  [ ! -f "$out/suite/run.toml" ] || words+=(--resume --retry-failed)
  go "$LONGHAUL" run quick --device "$device" --out "$out/suite" "${words[@]}"
}

throughput() {
  local words=() archs=$archs forms=$forms
  if [ $dry = no ] && ! has_torch; then echo "  skipped: $python has no PyTorch; set PYTHON to one that has"; return 3; fi
  case $size in
    quick) words=(--widths "${widths:-128}" --products "${products:-tf32}" --seconds 1) ;;
    tiny)
      words=(--widths "${widths:-64}" --products "${products:-float32}" --batch 2 --length 80 --seconds 0.1)
      : "${archs:=lstm,mamba2}" "${forms:=eager}"
      ;;
    *) words=(${widths:+--widths "$widths"} ${products:+--products "$products"}) ;;
  esac
  words+=(${archs:+--archs "$archs"} ${forms:+--forms "$forms"})
  script throughput.py --csv "$out/throughput.csv" ${words[@]+"${words[@]}"}
}

kernels() {
  local words=()
  if [ $dry = no ] && [ ! -x "$KERNEL_SPEED" ]; then echo "  skipped: no kernel_speed in $build"; return 3; fi
  case $size in
    quick) words=(--lengths 2048,8192 --seconds 0.2) ;;
    tiny) words=(--lengths 70 --batch 1 --d-inner 128 --seconds 0.01 --mebibytes 1) ;;
  esac
  script kernels.py --csv "$out/kernels.csv" ${words[@]+"${words[@]}"}
}

long() {
  local words=()
  case $size in
    quick) words=(--lengths 65536,262144) ;;
    tiny) words=(--lengths 64,256 --d-model 64 --layers 1 --vocab 64) ;;
  esac
  script long.py --csv "$out/long.csv" ${words[@]+"${words[@]}"}
}

# All of them. --------------------------------------------------------------------------------------------------------
results=() failed=0
for stage in "${stages[@]}"; do
  printf '== %s\n' "$stage"
  begun=$SECONDS
  "$stage"
  case $? in
    0) word=ok ;;
    3) word=skipped ;;
    *) word=FAILED failed=1 ;;
  esac
  [ $dry = no ] || word=printed
  results+=("$(printf '%-12s %-8s %5d s' "$stage" $word $((SECONDS - begun)))")
done
printf '\n== stages on %s\n' "${card:-an unknown card}"
printf '%s\n' "${results[@]}"
if [ $dry = no ]; then
  { printf '%s\n' "${results[@]}"; echo; "$python" "$here/summary.py" "$out"; } > "$out/summary.txt"
  printf '\n== asked and reached\n'
  "$python" "$here/summary.py" "$out"
  printf '\n%s: %s KiB\n' "$out" "$(du -sk "$out" | cut -f1)"
fi
exit $failed
