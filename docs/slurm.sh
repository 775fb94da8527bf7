#!/bin/bash
# AlexNet on ImageNet, two machines of four GPUs, one process for each: sbatch docs/slurm.sh, from the repository's folder,
# which all machines see. Before: --mode=prepare in one process (README, ImageNet).
#SBATCH --job-name=alexnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4        # not --gpus-per-task: jax takes GPU number SLURM_LOCALID of those it sees
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120        # two minutes before the time is up: all save
#SBATCH --requeue
#SBATCH --open-mode=append

srun --kill-on-bad-exit=1 python launch.py --exp=alexnet_imagenet --data.prepared=/shared/imagenet-256 --workdir=/shared/runs/alexnet
status=$?
if [ "$status" -eq 143 ]; then # saved at SIGTERM: the same command goes on from there
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
