#!/usr/bin/env bash
# The speed table: Longhaul beside its peers, see speed.py. Installs the peers from PyPI into a virtual
# environment of its own under target/ (PEER_VENV names another). Arguments go to speed.py.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEER_VENV:-target/peer-speed}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch transformers mambapy
fi
exec "$venv/bin/python" bench/speed.py "$@"
