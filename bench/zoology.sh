#!/usr/bin/env bash
# Longhaul beside Zoology on the same two cores, in turn, three times: MQAR training, tokens a second.
# Needs a checkout of HazyResearch/zoology in ZOOLOGY_CHECKOUT; installs PyTorch from PyPI into a
# virtual environment of its own under target/.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${ZOOLOGY_CHECKOUT:?set it to a checkout of HazyResearch/zoology}"

venv=${PEER_VENV:-target/peer-zoology}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch numpy einops pydantic wandb tqdm pandas torchvision \
        opt_einsum rich pyyaml
fi
longhaul=${LONGHAUL:-target/release/longhaul}
rate() { sed -n 's/.*"tokens_per_second": *\([0-9.]*\).*/\1/p'; }

for round in 1 2 3; do
    ours=$("$longhaul" bench --arch transformer:mlp=none,positions=learned,tied=true,heads=1 \
        --task mqar:pairs=4 --mode train --batch 512 --length 64 --d-model 64 --layers 2 \
        --threads 2 | rate)
    theirs=$("$venv/bin/python" bench/zoology.py 2>/dev/null | rate)
    awk -v a="$ours" -v b="$theirs" -v r="$round" \
        'BEGIN { printf "round %d: longhaul %.0f, zoology %.0f tokens/s, ratio %.1f\n", r, a, b, a / b }'
done
