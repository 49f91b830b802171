#!/usr/bin/env bash
# The tables of committed runs and of a report, read by pandas and DuckDB with the types of results/schema.json, and what
# `longhaul export` writes, read by the tools that it is for.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
environment=$target/interchange
python3 -c 'import ensurepip, venv' 2>/dev/null || {
  echo "python3 has no venv; install the Debian package python3-venv" >&2
  exit 1
}
if ! cmp --silent tests/interchange/requirements.txt "$environment/requirements.txt"; then
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement tests/interchange/requirements.txt
  # Of lm-evaluation-harness the part that reads its files, without PyTorch and what else evaluates.
  "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps lm_eval==0.4.13
  cp tests/interchange/requirements.txt "$environment/"
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
longhaul=$target/release/longhaul
"$longhaul" report results/reference/quick --with tests/audit/sound/ruler/4096/pred/vt.jsonl --out "$out/report" >"$out/said"
mkdir "$out/tables"
"$longhaul" compare results/reference/quick mamba2 transformer --csv >"$out/tables/compare.csv"
"$longhaul" run smoke --arch lstm --out "$out/run" >>"$out/said" 2>&1
"$longhaul" reproduce "$out/run" --out "$out/again" >>"$out/said" 2>&1
cp "$out/again/reproduction.csv" "$out/tables/"
"$environment/bin/python" tests/interchange/read.py results/schema.json \
  results/reference/quick results/reference/books results/reference/published "$out/report" "$out/tables"

# A checkpoint of the tests' plugin that answers with the first digits that it read: right here and wrong there.
cargo build --release --quiet -p longhaul-faulty --examples
mkdir "$out/digits"
echo '{"model_type": "digits"}' >"$out/digits/config.json"
python3 - "$out/digits/model.safetensors" <<'END'
import json, struct, sys
head = json.dumps({"one": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(head)) + head + struct.pack("<f", 1.0))
END
"$longhaul" checkpoint eval "$out/digits" --tokenizer bytes --plugin "$target/release/examples/libreads_digits.so" \
  --task niah_single_1 --task niah_multivalue --lengths 1024,2048 --samples 7 --out "$out/answers" >>"$out/said" 2>&1
for form in lm-eval ruler babilong; do
  "$longhaul" export "$out/answers" --to "$form" --out "$out/$form" >>"$out/said"
done
"$environment/bin/python" tests/interchange/tools.py "$out/lm-eval" "$out/ruler" "$out/babilong"
