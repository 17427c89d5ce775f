"""The start of a process among several, as ``torchrun`` launches them."""

__all__ = ["join_processes", "leave_processes"]

import datetime
import gc
import os

import torch
import torch.distributed as dist

TIMEOUT = datetime.timedelta(hours=2)
"""How long the others wait while one evaluates; one that dies ends the job through torchrun."""


def join_processes(device: torch.device | str | None = None) -> torch.device:
    """Joins the other processes, if torchrun started more than one.

    Args:
        device: Where to compute; CUDA where there is one unless given. Of several CUDA devices,
            each process takes one.

    Returns:
        The device of this process.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # What is said about the run stays on the CPU, tensors of the training on their device.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    return device


def leave_processes() -> None:
    """Ends what `join_processes` began; all processes must call it, when nothing is left to do.

    A process that just exits may tear down the threads of a communication that is not over.
    """
    if dist.is_initialized():
        dist.barrier()
        gc.collect()  # DDP holds on to the group.
        dist.destroy_process_group()
