#!/bin/sh
# Holds `longhaul ruler` against lm-eval 0.4.13: templates, sizes, scores and speed of the tasks whose generators
# need no network. Usage: tests/ruler/run.sh FOLDER [LENGTH..]; FOLDER takes the Python environment.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?a folder for the Python environment}
shift
if [ ! -x "$folder/venv/bin/python" ]; then
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install -q 'lm-eval==0.4.13' wonderwords nltk transformers scipy numpy
fi
exec "$folder/venv/bin/python" "$here/compare.py" "$here/../../target/release/longhaul" "$folder" "$@"
