#!/usr/bin/env bash
# A batch on a SLURM allocation, which starts a Ray of its own and takes it along at its end:
#   sbatch configs/farms/slurm.sh jobs.yaml /renders/suns
#   sbatch --nodes=1 --gpus-per-node=0 configs/farms/slurm.sh jobs.yaml /renders/suns --retries 3
# What follows the folder goes to `frieze batch`. Both paths, the models and Frieze itself lie where
# every node sees them; activate the environment before sbatch, which hands it on.
#
# The batch stops at its next step and is queued again 300 s before the time limit, and when another
# job takes the nodes (PreemptParameters=send_user_signal; without it Slurm stops and queues it by
# itself). `scancel` stops it for good. It goes on with what is saved, on as many nodes as it gets.
#SBATCH --job-name=frieze
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

if (($# < 2)); then
    echo "usage: sbatch $0 JOBS FOLDER [flags of frieze batch]" >&2
    exit 2
fi
jobs=$1 out=$2
shift 2

# Each of these stops the batch at its next step; only the first queues the job again.
batch='' again='' signals=0
trap 'again=yes; signals=$((signals + 1)); [[ -z $batch ]] || kill -TERM "$batch"' USR1
trap 'signals=$((signals + 1)); [[ -z $batch ]] || kill -TERM "$batch"' TERM INT

# The head is where this script runs: an address of it that other nodes reach, or HEAD_IP.
head=${HEAD_IP:-$(getent ahostsv4 "$SLURMD_NODENAME" | awk '$1 !~ /^127[.]/ {print $1; exit}')}
head=${head:-$(hostname --all-ip-addresses | awk '{print $1}')}
# Ports of this job's own, for nodes may be shared. Who knows no token is kept out; it travels in
# the environment of this job's processes alone.
port=$((20000 + SLURM_JOB_ID % 5000 * 4))
RAY_AUTH_TOKEN=$(od --address-radix=n --read-bytes=32 --format=x1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export FRIEZE_HEAD="$head" FRIEZE_PORT="$port"

# On every node: Ray with what was allocated, of which Ray itself would see the whole machine.
# shellcheck disable=SC2016 # the nodes' own values
node='
    flags=(--temp-dir="/tmp/frieze-$SLURM_JOB_ID" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
        --object-store-memory=268435456 --disable-usage-stats --block
        --dashboard-agent-listen-port="$((FRIEZE_PORT + 1))")
    if ((SLURM_PROCID == 0)); then
        flags+=(--head --node-ip-address="$FRIEZE_HEAD" --port="$FRIEZE_PORT"
            --ray-client-server-port="$((FRIEZE_PORT + 2))" --include-dashboard=false)
    else
        flags+=(--address="$FRIEZE_HEAD:$FRIEZE_PORT")
    fi
    exec ray start "${flags[@]}" >/dev/null
'
each=(srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)
"${each[@]}" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --no-kill --kill-on-bad-exit=0 bash -c "$node" &
ray=$!
until (: 3<>"/dev/tcp/$head/$port") 2>/dev/null || ((signals)); do
    kill -0 "$ray" 2>/dev/null || { echo "Ray ended before it could be reached" >&2; exit 1; }
    sleep 0.2
done

code=130
if ((signals == 0)); then
    frieze batch "$jobs" --out "$out" --continue --address "$head:$port" --wait 600 \
        --workers "$((SLURM_JOB_NUM_NODES * (${SLURM_GPUS_ON_NODE:-0} > 0 ? ${SLURM_GPUS_ON_NODE:-0} : 1)))" "$@" &
    batch=$!
    before=-1
    while ((before != signals)); do # a trap ends a wait before the batch has ended
        before=$signals code=0
        wait "$batch" || code=$?
    done
fi

kill -TERM "$ray" 2>/dev/null || true
wait "$ray" 2>/dev/null || true
"${each[@]}" --overlap rm -rf "/tmp/frieze-$SLURM_JOB_ID" || true
if [[ $again && $code != 0 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
