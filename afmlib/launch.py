"""The start of a process among several, which ``torchrun`` or ``srun`` launches."""

__all__ = ["cpu_has_bfloat16", "join_processes", "leave_processes"]

import datetime
import gc
import os
import threading
import time

import torch
import torch.distributed as dist

from afmlib.slurm import join_slurm_step

TIMEOUT = datetime.timedelta(hours=2)
"""How long processes wait for each other, for example during an evaluation."""

LAUNCHER_CHECK = 0.5
"""Seconds between two checks that torchrun still runs."""


def cpu_has_bfloat16() -> bool:
    """Returns whether this CPU multiplies matrices in bfloat16, by torch's oneDNN.

    Without, torch has a loop that is two orders of magnitude slower than float32.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def join_processes(device: torch.device | str | None = None) -> torch.device:
    """Joins the other processes, if torchrun or srun started more than one.

    Args:
        device: Where to compute. Defaults to CUDA if available, one GPU per process.

    Returns:
        The device of this process.
    """
    join_slurm_step()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda" and device.index is None:
        # With --gpus-per-task, SLURM shows each task only its GPU.
        index = int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.device_count() > 1 else 0
        device = torch.device("cuda", index)
    if not dist.is_initialized():
        if "TORCHELASTIC_RUN_ID" in os.environ:
            threading.Thread(target=_exit_with_torchrun, args=(os.getppid(),), daemon=True).start()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Messages about the run use the CPU, tensors of the training use their device.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    return device


def _exit_with_torchrun(parent: int) -> None:
    """Ends this process when torchrun has died without ending it, as by SIGKILL."""
    while os.getppid() == parent:
        time.sleep(LAUNCHER_CHECK)
    os._exit(1)  # Nothing is saved: torchrun may already run again in the same folder.


def leave_processes() -> None:
    """Leaves the process group. All processes must call it at the end.

    A process that exits without it may break unfinished communication.
    """
    if dist.is_initialized():
        dist.barrier()
        gc.collect()  # DDP holds a reference to the group.
        dist.destroy_process_group()
