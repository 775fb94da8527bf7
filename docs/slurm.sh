#!/bin/bash
# AlexNet on ImageNet, on two machines with four GPUs each, one process per GPU. Submit it with `sbatch docs/slurm.sh` from the
# repository's folder, which all machines must see, after --mode=prepare was run in one process (README, ImageNet).
#SBATCH --job-name=alexnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4        # not --gpus-per-task: jax uses GPU number SLURM_LOCALID of the visible ones
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120        # two minutes before the time limit: all processes save
#SBATCH --requeue
#SBATCH --open-mode=append

srun --kill-on-bad-exit=1 python launch.py --exp=alexnet_imagenet --data.prepared=/shared/imagenet-256 --workdir=/shared/runs/alexnet
status=$?
if [ "$status" -eq 143 ]; then # saved after SIGTERM: the same command resumes from there
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
