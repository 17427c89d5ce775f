"""The processes of ``srun``, with the environment variables that torchrun would set for them.

====================  ==========================================================
``RANK``              ``SLURM_PROCID``
``WORLD_SIZE``        ``SLURM_NTASKS``
``LOCAL_RANK``        ``SLURM_LOCALID``
``MASTER_ADDR``       the first host of ``SLURM_STEP_NODELIST``, which runs task 0
``MASTER_PORT``       a number that follows from job and step
====================  ==========================================================
"""

__all__ = ["first_host", "join_slurm_step"]

import os
import re

NEEDED = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID")

FIRST_PORT, NUM_PORTS = 10_000, 20_000
"""Ports for rank 0, below those that systems give to outgoing connections."""


def join_slurm_step() -> None:
    """Sets the variables of torchrun in a task of ``srun``, if there are several tasks.

    If ``WORLD_SIZE`` is set, nothing changes: torchrun has started the process, or the user wants
    separate runs. A command in a batch script, without srun, is a single process.

    Raises:
        ValueError: If variables of SLURM are missing.
    """
    environment = os.environ
    is_step = "SLURM_STEP_ID" in environment and environment.get("SLURM_NTASKS", "1") != "1"
    if not is_step or "WORLD_SIZE" in environment:
        return
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    missing = [name for name in NEEDED if name not in environment]
    if missing or not nodes:
        raise ValueError(
            f"SLURM started {environment['SLURM_NTASKS']} tasks without "
            f"{', '.join(missing) or 'SLURM_JOB_NODELIST'}, so they cannot find each other: start "
            "them with srun, or use torchrun."
        )
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    environment.setdefault("MASTER_ADDR", first_host(nodes))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + (10 * job + step) % NUM_PORTS))
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_NTASKS"]


def first_host(nodes: str) -> str:
    """Returns the first host of a list of SLURM.

    Example:
        >>> first_host("gpu[07-09,12],login1")
        'gpu07'
    """
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)
    if first is None:
        raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no host.")
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])
