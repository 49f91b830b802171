# A Slurm of two nodes on this machine, to be sourced: `lab_up FOLDER` and `lab_down FOLDER`. It has its own munge,
# key, ports and state in FOLDER, listens on the loopback only, keeps no accounts and needs no control groups.

lab_up() {
  local lab=$1 host memory port user
  host=$(hostname -s) user=$(id -un)
  memory=$(slurmd -C | grep -o 'RealMemory=[0-9]*' | cut -d= -f2)
  port=$((20000 + $$ % 10000 * 4))
  mkdir -p "$lab"/{state,log,spool/n1,spool/n2,munge}
  # munge refuses a key or a socket that others could have put there.
  chmod 755 "$lab"
  chmod 711 "$lab/munge"
  mkdir -m 700 "$lab/munge/own"
  head -c 1024 /dev/urandom >"$lab/munge/own/key"
  chmod 600 "$lab/munge/own/key"
  munged --key-file="$lab/munge/own/key" --socket="$lab/munge/socket" --pid-file="$lab/munge/own/pid" \
    --log-file="$lab/munge/own/log" --seed-file="$lab/munge/own/seed"
  cat >"$lab/slurm.conf" <<END
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$lab/munge/socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool/%n
SlurmctldPidFile=$lab/slurmctld.pid
SlurmdPidFile=$lab/slurmd-%n.pid
SlurmctldLogFile=$lab/log/slurmctld.log
SlurmdLogFile=$lab/log/slurmd-%n.log
MinJobAge=600
KillWait=5
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] CPUs=1 RealMemory=$((memory / 3)) Gres=gpu:1 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  echo 'NodeName=n[1-2] Name=gpu File=/dev/null' >"$lab/gres.conf"
  export SLURM_CONF=$lab/slurm.conf
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && return
    sleep 0.1
  done
  echo "Slurm did not come up:" >&2
  tail -n 20 "$lab"/log/*.log >&2
  return 1
}

lab_down() {
  local lab=$1 file
  scancel --me --signal=KILL --full 2>/dev/null || true
  scancel --me 2>/dev/null || true
  for file in "$lab"/slurmctld.pid "$lab"/slurmd-*.pid "$lab"/munge/own/pid; do
    [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
  done
}
