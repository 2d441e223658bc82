#!/usr/bin/env bash
#SBATCH --job-name=seeds
#SBATCH --array=0-4
#SBATCH --time=24:00:00
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=seeds-%A_%a.log
# Five jobs that differ in their seed; each task, requeued or not, goes on with its own run.
set -eu
exec ${SELFSUP:-selfsup} pretrain temporal --data "${DATA:-motion}" \
    --seed "${SLURM_ARRAY_TASK_ID:-0}" "$@"
