#!/usr/bin/env bash
# Compiles the kernels that the tests launch by NVRTC for cards that are not here, for one of them also with activations
# stored as bfloat16, and holds their registers, spills and instructions against kernels.csv; fails where one does not
# compile, grew, is not in the table or is gone. Only sources whose text is not the one that the table was made of are
# compiled; with LONGHAUL_COMPILE_ALL=1 all. LONGHAUL_WRITE_TABLE=1 writes the table. Compiler and disassembler are
# installed from PyPI under target/, in the versions that the table was made with. Run after the tests: with
# LONGHAUL_KERNEL_SOURCES they leave the sources, see ../../.ci/run.
set -euo pipefail
cd "$(dirname "$0")/../.."
sources=${LONGHAUL_KERNEL_SOURCES:-target/kernel-sources}
version=13.2.86
venv=target/nvrtc-$version
if [ ! -e "$venv/installed" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "nvidia-cuda-nvrtc==$version" "nvidia-cuda-nvdisasm==$version"
  touch "$venv/installed"
fi
folder() { dirname "$(realpath "$(find "$venv" -name "$1" -print -quit)")"; }
export LD_LIBRARY_PATH="$(folder libnvrtc.so.13):${LD_LIBRARY_PATH:-}"
export PATH="$(folder nvdisasm):$PATH"
# With the features that the tests of the workspace were built with, so that nothing is built again.
cargo build --release --quiet --workspace --example kernels
kernels=${CARGO_TARGET_DIR:-target}/release/examples/kernels
# Not those that the emulator's own tests plant faults in.
find "$sources" -name '*.cu' ! -name 'accesses.*' ! -name 'faults.*' ! -name 'stored.*' -print0 | xargs -0 -P 2 -n 5 "$kernels" rows tests/emulator/kernels.csv | "$kernels" compare tests/emulator/kernels.csv
