#!/usr/bin/env bash
# `longhaul submit slurm` and `collect` on a real Slurm of two nodes: an array job to its end, of which one task is
# requeued, one is killed and one has its node drained; what they leave together is what one machine leaves.
#
#   cargo build --release --workspace && tests/slurm/run.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=${CARGO_TARGET_DIR:-$here/../../target}/release/longhaul
for program in slurmctld slurmd sbatch munged python3; do
  PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || {
    echo "there is no $program: apt-get install slurmctld slurmd slurm-client munge python3" >&2
    exit 1
  }
done
[ -x "$binary" ] || { echo "there is no $binary: cargo build --release --workspace" >&2; exit 1; }
export PATH=$PATH:/usr/sbin
binary=$(realpath "$binary")

work=$(mktemp -d)
chmod 755 "$work"
source "$here/lab.sh"
end() {
  local code=$?
  if [ $code -ne 0 ]; then
    squeue 2>/dev/null || true
    tail -n 20 "$work"/lab/log/*.log "$work"/run/logs/*.log 2>/dev/null || true
  fi
  lab_down "$work/lab"
  rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; }
  [ $code -eq 0 ] || echo "failed" >&2
  exit $code
}
trap end EXIT
cd "$work"

say() { printf '%3d s  %s\n' "$SECONDS" "$*"; }
fail() { echo "$*" >&2; exit 1; }
# Waits until a command succeeds: until WHAT COMMAND...
until_() {
  local what=$1
  shift
  for _ in $(seq 1200); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  fail "waited in vain: $what"
}
state() { squeue --noheader --array --format='%K %T' | awk -v task="$1" '$1 == task { print $2 }'; }
is() { [ "$(state "$1")" = "$2" ]; }
node() { squeue --noheader --array --format='%K %N' | awk -v task="$1" '$1 == task { print $2 }'; }
# A command, after requeued tasks are told to begin: Slurm lets two minutes pass, which no test waits for.
hastened() {
  squeue --noheader --array --state=PENDING --format='%K %r' | awk '$2 == "BeginTime" { print $1 }' |
    while read -r task; do scontrol update jobid="${job}_$task" starttime=now; done
  "$@"
}
# Whether a part is in the middle of its work: something is measured or trained, and something is left.
is_in_the_middle() {
  is "$1" RUNNING && [ "$(wc -l <"run/parts/$1/training.csv")" -gt 3 ]
}

say "two nodes come up"
lab_up "$work/lab"
cp "$here/suite.toml" .

say "the run on one machine"
"$binary" run suite.toml --jobs 2 --threads 1 --out single >single.log 2>&1

say "cards are the scheduler's"
"$binary" submit slurm suite.toml --tasks 1 --gpus-per-task 1 --no-submit --out cards >/dev/null
grep -q -- '--device cuda:0' cards/job.sh
sed -i 's/^exec .*/exec printenv CUDA_VISIBLE_DEVICES/' cards/job.sh
sbatch --wait --array=1 cards/job.sh >/dev/null
[ "$(cat cards/logs/1.log)" = 0 ] || fail "the task saw the cards $(cat cards/logs/1.log)"

say "what Slurm refuses leaves nothing"
"$binary" submit slurm suite.toml --sbatch=--partition=none --out refused 2>refused.log && fail "it was taken"
grep -q 'invalid partition' refused.log || fail "$(cat refused.log)"
[ ! -e refused ] || fail "$(ls refused)"

say "the run in four parts, two at a time"
"$binary" submit slurm suite.toml --tasks 4 --time 10 --save-every 0 --out run >submit.log
job=$(grep -o 'job [0-9]*' submit.log | cut -d' ' -f2)
"$binary" submit slurm suite.toml --tasks 4 --out run 2>again.log && fail "it was submitted twice"
grep -q 'submitted already' again.log || fail "$(cat again.log)"

until_ "part 1 works" is_in_the_middle 1
"$binary" collect run >early.log && fail "what runs was collected"
grep -q running early.log || fail "$(cat early.log)"
say "the task of part 1 is requeued on node $(node 1)"
scontrol requeue "${job}_1"
until_ "part 1 ended in order" grep -q 'interrupted' run/logs/1.log

until_ "part 2 works" is_in_the_middle 2
say "the process of part 2 is killed on node $(node 2)"
kill -KILL "$(cat run/parts/2/.lock)"
until_ "part 2 has failed" is 2 ""
scontrol requeue "${job}_2"

until_ "part 3 works" is_in_the_middle 3
drained=$(node 3)
say "node $drained is drained under part 3"
scontrol update nodename="$drained" state=drain reason=test
scontrol requeue "${job}_3"
until_ "part 3 runs again" hastened is 3 RUNNING
say "part 3 runs again on node $(node 3)"
[ "$(node 3)" != "$drained" ] || fail "part 3 runs on a drained node"
scontrol update nodename="$drained" state=resume

until_ "all parts are done" hastened "$binary" collect run --out whole
say "all parts are done"
"$binary" collect run --out whole >whole.log
python3 "$here/same.py" single whole
# Into its own folder too.
"$binary" collect run >run.log
python3 "$here/same.py" single run
say "done"
