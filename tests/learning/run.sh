#!/usr/bin/env bash
# Whether PyTorch learns what Longhaul learns, see learning.py. Builds Longhaul, and installs PyTorch from PyPI into a
# virtual environment of its own under target/ (LEARNING_VENV names another). Arguments go to learning.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --workspace --quiet
cargo build --release --quiet --package longhaul --example batches
venv=${LEARNING_VENV:-target/learning}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch numpy
fi
exec "$venv/bin/python" tests/learning/learning.py "$@"
