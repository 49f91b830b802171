#!/usr/bin/env bash
# Compiles every kernel that the tests launch by NVRTC for cards that are not here, for one of them also with activations
# stored as bfloat16, and prints registers and spills; fails where one does not compile or spills more than its file lists. Without NVRTC on the library
# path it is installed from PyPI under target/, in the version that the lists of spills were made with. Run
# after the tests: with LONGHAUL_KERNEL_SOURCES they leave the sources, see ../../.ci/run.
set -euo pipefail
cd "$(dirname "$0")/../.."
sources=${LONGHAUL_KERNEL_SOURCES:-target/kernel-sources}
venv=target/nvrtc
if ! ldconfig -p | grep -q 'libnvrtc\.so'; then
  if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'nvidia-cuda-nvrtc==13.2.*'
  fi
  library=$(find "$venv" -name 'libnvrtc.so.13' -print -quit)
  export LD_LIBRARY_PATH="$(dirname "$(realpath "$library")"):${LD_LIBRARY_PATH:-}"
fi
# With the features that the tests of the workspace were built with, so that nothing is built again.
cargo build --release --quiet --workspace --example kernels
printf '%s\0' "$sources"/*.cu | xargs -0 -P 2 -n 5 "${CARGO_TARGET_DIR:-target}/release/examples/kernels"
