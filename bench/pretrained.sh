#!/usr/bin/env bash
# A model of SmolLM2-135M's shape: reading and decoding beside transformers, and memory; see pretrained.py. Installs
# the peer from PyPI into a virtual environment of its own under target/ (PEER_VENV names another). Arguments go to
# pretrained.py. Five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEER_VENV:-target/peer-pretrained}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch transformers
fi
exec "$venv/bin/python" bench/pretrained.py "$@"
