#!/bin/bash
# Trains one network on the GPUs of several nodes under Slurm, and goes on by itself after preemption and time limits.
#
#   sbatch examples/slurm.sh RUN CONFIG [KEY=VALUE...]
#
# RUN is the run folder, on a disk that all nodes share. What follows are the arguments of `yolov7-jax train`; where RUN
# holds a run already, they are those that it began with, and it is resumed. docs/scaling.md says the rest.
#
# A task a GPU: each process takes the GPU of its number on the node, so every task has to see all GPUs of its node.
#SBATCH --job-name=yolov7-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=INT@300

set -euo pipefail

run=${1:?give the run folder, then the arguments of yolov7-jax train}
shift
if [ -f "$run/config.yaml" ]; then
    arguments=(--resume "$run")
else
    [ ! -d "$run" ] || rmdir "$run" # a start that was killed before it wrote anything; refuses what is not empty
    arguments=("$@" --output "$run")
fi

trap : TERM # the tasks of a preempted job save; this shell waits for them
status=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" yolov7-jax train "${arguments[@]}" || status=$?

if [ "$status" -eq 130 ]; then # --signal: saved ahead of the time limit; a preempted job (143) is requeued by Slurm
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
