#!/usr/bin/env bash
# Installs SLURM from Debian packages and starts a cluster of two nodes on this machine, for the tests marked `cluster`.
# Needs root, and no systemd. The cluster has no accounting and no cgroups.
#
#   scripts/start-slurm.sh --install      install the packages, unless they are there
#   scripts/start-slurm.sh FOLDER         start a cluster; SLURM_CONF=FOLDER/slurm.conf makes the commands of SLURM use it
#   scripts/start-slurm.sh --stop FOLDER  end the cluster's daemons
set -euo pipefail
usage="usage: scripts/start-slurm.sh --install | [--stop] FOLDER"
[ "$(id -u)" = 0 ] || { echo "error: not root. Remedy: run this script as root, in a container of your own"; exit 2; }
if [ "${1:-}" = --install ]; then
  command -v slurmctld slurmd sbatch munged >/dev/null && exit 0
  # A policy of 101 keeps the packages from starting daemons of their own.
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
  exit 0
fi
stop=false
if [ "${1:-}" = --stop ]; then stop=true; shift; fi
folder=${1:?$usage}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

end_daemons() {
  for file in "$folder"/*.pid; do
    [ -s "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
  done
}
if $stop; then end_daemons; exit 0; fi

command -v slurmctld slurmd sbatch munged >/dev/null || {
  echo "error: no SLURM is installed. Remedy: run scripts/start-slurm.sh --install"; exit 2; }
host=$(hostname -s)
cores=$(nproc)
mkdir -p "$folder"/{state,spool-n1,spool-n2,munge}
chmod 0700 "$folder/munge"
chown -R munge: "$folder/munge"
[ -s "$folder/munge/key" ] || { dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none; chmod 0400 "$folder/munge/key"; chown munge: "$folder/munge/key"; }
chmod 0755 "$folder" "$(dirname "$folder")" 2>/dev/null || true

cat > "$folder/slurm.conf" <<CONF
ClusterName=muvla
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=${SLURM_PORT:-26817}
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=20
MinJobAge=300
SlurmctldTimeout=60
SlurmdTimeout=60
RebootProgram=/bin/true
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-26817} + 1)) CPUs=$cores
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-26817} + 2)) CPUs=$cores
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF

export SLURM_CONF=$folder/slurm.conf
end_daemons
sleep 1
runuser -u munge -- munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/munged.log" --seed-file="$folder/munge/seed"
cp "$folder/munge/munged.pid" "$folder/munged.pid"
slurmctld -c
slurmd -N n1
slurmd -N n2
for _ in $(seq 1 30); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null | sort -u)" = idle ] && { echo "SLURM_CONF=$SLURM_CONF"; exit 0; }
  sleep 1
done
sinfo || true
echo "error: the nodes are not idle after 30 s. Remedy: read $folder/slurmctld.log and $folder/slurmd-n1.log"
exit 1
