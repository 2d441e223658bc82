#!/usr/bin/env bash
#SBATCH --job-name=temporal
#SBATCH --time=24:00:00
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One job that goes back into the queue until it is done. B: sends the signal to this shell, which
# passes it on and stays to ask for the requeue.
set -u
pid= asked=
trap 'asked=1; [ -z "$pid" ] || kill -USR2 "$pid" 2>/dev/null' USR1 USR2 TERM
${SELFSUP:-selfsup} pretrain temporal --data "${DATA:-motion}" "$@" &
pid=$!
# A signal that came before the line above had nobody to be passed on to.
[ -z "$asked" ] || kill -USR2 "$pid" 2>/dev/null
# A signal ends `wait` before the job has ended; then it is waited for again.
asked=1
while [ -n "$asked" ]; do
    asked=
    wait "$pid"
    status=$?
done
if [ "$status" -eq 75 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    ${SCONTROL:-scontrol} requeue "$SLURM_JOB_ID"
fi
exit "$status"
