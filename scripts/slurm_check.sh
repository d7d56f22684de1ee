#!/usr/bin/env bash
# What holds under Slurm: a cluster of this one machine in a temporary folder, and on it the script
# of docs/cluster.md.
#
#   scripts/slurm_check.sh [CUVEE]
#
# CUVEE is a program with the feature `mpi` (default target/release/cuvee). Needs Debian's
# slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge, and python3. Nothing of a Slurm that
# may run here is touched: ports, keys and folders are its own. Prints a line a check and ends with
# 1 where one has failed.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in slurmctld slurmd sbatch munged python3; do
    command -v "$program" >/dev/null || { echo "skipped: no $program (see the head of $0)"; exit 0; }
done
cuvee=$(realpath "${1:-target/release/cuvee}")

place=$(mktemp -d)
# Before anything else: commands of Slurm would ask a cluster that this machine belongs to.
export SLURM_CONF=$place/slurm.conf
daemons=()
clean_up() {
    local jobs
    for _ in $(seq 20); do
        jobs=$(squeue --noheader --format=%A 2>/dev/null) && [ -n "$jobs" ] || break
        scancel --signal=KILL --full $jobs 2>/dev/null || true
        scancel $jobs 2>/dev/null || true
        sleep 0.5
    done
    [ ${#daemons[@]} -eq 0 ] || kill "${daemons[@]}" 2>/dev/null || true
    wait
    rm -rf "$place"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The cluster. A requeued job waits for cred_expire seconds.
me=$(id -un) host=$(hostname -s)
read -r controller node < <(python3 - <<'PYTHON'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
mkdir "$place"/{munge,state,spool,bin}
chmod 755 "$place" "$place/munge"
(umask 077 && head -c 1024 /dev/urandom >"$place/munge/key")
cat >"$SLURM_CONF" <<END
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket,cred_expire=5
SlurmctldPort=$controller
SlurmdPort=$node
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES State=UP
END
munged --force --foreground --key-file="$place/munge/key" --socket="$place/munge/socket" \
    --pid-file="$place/munge/pid" --log-file="$place/munge/log" --seed-file="$place/munge/seed" \
    >"$place/munged.log" 2>&1 &
daemons+=($!)
for _ in $(seq 50); do [ -S "$place/munge/socket" ] && break; sleep 0.1; done
slurmctld -D -c >"$place/slurmctld.log" 2>&1 &
daemons+=($!)
ready() { sinfo 2>/dev/null | grep -q idle; }
# No control group is used, but slurmd wants to know of which kind they are; later ones, of none.
for kind in cgroup/v1 disabled; do
    echo "CgroupPlugin=$kind" >"$place/cgroup.conf"
    slurmd -D -c >"$place/slurmd.log" 2>&1 &
    daemons+=($!)
    for _ in $(seq 100); do
        ! ready && kill -0 "${daemons[-1]}" 2>/dev/null || break
        sleep 0.2
    done
    ! ready || break
done
if ! ready; then
    tail -n 5 "$place"/*.log >&2
    echo "failed: Slurm does not start"
    exit 1
fi

# Two domains of words, the smallest model, and the script out of the documentation.
sed -n '/^#!\/bin\/bash/,/^```/p' docs/cluster.md | sed '$d' >"$place/cuvee.sbatch"
ln -s "$cuvee" "$place/bin/cuvee"
export PATH=$place/bin:$PATH CUVEE_CACHE=$place/cache
cd "$place"
python3 - <<'PYTHON'
import json, random

for name, words in (("prose", "the a river ran over old stones under every green bridge while nobody saw it"),
                    ("code", "let mut fn if else return match for in while struct impl use pub self None Ok Err")):
    draw = random.Random(name)
    with open(f"{name}.jsonl", "w") as file:
        for _ in range(300):
            print(json.dumps({"text": " ".join(draw.choices(words.split(), k=60))}), file=file)
PYTHON
cat >small.toml <<'END'
[tokenizer]
train = { vocab_size = 300 }
[data]
dir = "shards"
[[domain]]
name = "prose"
source = { path = "prose.jsonl" }
[[domain]]
name = "code"
source = { path = "code.jsonl" }
[mixture]
objective = "importance"
sampling = "uniform"
[model]
preset = "xs"
[train]
steps = 1000
batch_size = 4
context = 32
threads = 1
[eval]
every = 100
sequences = 4
[checkpoint]
every = 100
[compare]
seeds = 2
arms = [
    { name = "uniform", set = { mixture.sampling = "uniform" } },
    { name = "va", set = { mixture.sampling = "va" } },
]
END

failed=0
# Prints whether the command after the name of a check has succeeded, and else the end of a log.
check() {
    if "${@:2}"; then
        echo "ok      $1"
    else
        echo "failed  $1"
        tail -n 15 "$(ls -t "$place"/*.sbatch-*.log | head -n 1)" >&2 || true
        failed=1
    fi
}

submit() { sbatch --parsable --nodes=1 --cpus-per-task=1 --time=10 "$@"; }

# Whether all tasks of a job end well; waits for them.
ended() {
    local states
    for _ in $(seq 600); do
        states=$(scontrol show job "$1" | grep -o 'JobState=[A-Z_]*' | sort -u | tr '\n' ' ')
        case $states in
            "JobState=COMPLETED ") return 0 ;;
            *PENDING* | *RUNNING* | *CONFIGURING* | *COMPLETING* | *REQUEUED*) sleep 0.5 ;;
            *) break ;;
        esac
    done
    echo "job $1: $states" >&2
    return 1
}

# Waits until the run in a folder has made some steps, and tells its job as a preemption would.
interrupt() {
    for _ in $(seq 600); do
        [ "$(grep -c '"step"' "$2/metrics.jsonl" 2>/dev/null || true)" -gt 20 ] 2>/dev/null && break
        sleep 0.1
    done
    scancel --signal=TERM "$1"
}

# Whether a job was begun twice, and its log has the words.
went_on() {
    [ "$(scontrol show job "$1" | grep -o 'Restarts=[0-9]*' | sort | tail -n 1)" = Restarts=1 ] &&
        grep -q "$2" "$place"/*.sbatch-*.log
}

# Whether two runs have the same losses at every step, to so much.
same_losses() {
    python3 - "$@" <<'PYTHON'
import json, sys

def losses(run):
    records = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    return {r["step"]: r["loss"] for r in records if r["kind"] == "step"}

one, other = losses(sys.argv[1]), losses(sys.argv[2])
most = max((abs(one[step] - other.get(step, float("inf"))) for step in one), default=float("inf"))
print(f"{sys.argv[1]}, {sys.argv[2]}: {len(one)} and {len(other)} steps, losses differ by {most}", file=sys.stderr)
sys.exit(len(one) != len(other) or most > float(sys.argv[3]))
PYTHON
}

cuvee prepare small.toml --out alone-shards -q
cuvee train small.toml --out alone -q
compare=(compare small.toml --set train.steps=300)
cuvee "${compare[@]}" --out alone-compare --jobs 1 -q

prepared() {
    local parts
    parts=$(submit --array=1-2 cuvee.sbatch prepare small.toml --out parts)
    ended "$(submit --dependency="afterok:$parts" cuvee.sbatch prepare small.toml --out parts)" &&
        diff -r -x .lock -x shard.json alone-shards parts
}
check "prepare as an array, and then put together" prepared

ranks() {
    mkdir ranks
    ended "$(submit --ntasks=2 cuvee.sbatch train small.toml --out ranks --resume)" &&
        same_losses alone ranks 1e-5
}
check "srun --mpi=pmix, 2 ranks" ranks

# On so many ranks, to such a difference.
requeued() {
    local job out=stopped-$1
    mkdir "$out"
    job=$(submit --ntasks="$1" cuvee.sbatch train small.toml --out "$out" --resume)
    interrupt "$job" "$out"
    ended "$job" && went_on "$job" "Going on from $out" && same_losses alone "$out" "$2"
}
check "train told SIGTERM, requeued, gone on with" requeued 1 0
check "the same on 2 ranks" requeued 2 1e-5

swept() {
    local parts collected
    parts=$(submit --array=1-2 cuvee.sbatch "${compare[@]}" --out sweep)
    collected=$(submit --dependency="afterok:$parts" cuvee.sbatch "${compare[@]}" --out sweep --collect)
    # The second part is of the second seed.
    interrupt "${parts}_2" sweep/uniform/seed-1
    ended "$collected" && went_on "$parts" "everything is saved" &&
        diff alone-compare/comparison.json sweep/comparison.json
}
check "compare as an array, a task of it requeued, and then collected" swept
exit $failed
