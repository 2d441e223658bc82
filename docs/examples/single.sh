#!/usr/bin/env bash
#SBATCH --job-name=temporal
#SBATCH --time=24:00:00
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One job. Two minutes before its time is up it saves and ends with status 75.
set -eu
# exec, so that the signal reaches selfsup and not this shell.
exec ${SELFSUP:-selfsup} pretrain temporal --data "${DATA:-motion}" "$@"
