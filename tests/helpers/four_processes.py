"""What four processes on two machines do together, for tests/engine/test_sharding.py."""

import torch
import two_processes
from torch.distributed.fsdp import FSDPModule

from afmlib import engine, processes
from afmlib.config import ConfigError
from afmlib.engine import Runner
from afmlib.engine.distribution import ShardedDataParallel
from afmlib.launch import join_processes, leave_processes

HALF = "precision=bfloat16"


def dtypes_of(network):
    """Returns the dtypes in which the parts of a network are gathered."""
    states = [m._get_fsdp_state() for m in network.modules() if isinstance(m, FSDPModule)]
    return {state._mp_policy.param_dtype for state in states}


def everything(folder):
    """Runs all experiments, and saves the results of each process."""
    engine.runner.cpu_has_bfloat16 = lambda: True  # Slow, but right.
    join_processes("cpu")
    hybrid = ("distributed=hsdp", "activation_checkpointing=true")
    runner = Runner(
        two_processes.config_of("afm", HALF, "distributed=fsdp"), f"{folder}/idle", device="cpu"
    )
    objective = runner.objective
    results = {
        "hybrid": two_processes.gradients("afm", f"{folder}/hybrid", *hybrid),
        "half": two_processes.gradients("flow", f"{folder}/half", "distributed=hsdp", HALF),
        "dtypes": [dtypes_of(objective.get_submodule(name)) for name in objective.players],
    }
    try:
        ShardedDataParallel(3).distribute(objective)
    except ConfigError as error:
        results["uneven"] = str(error)
    torch.save(results, f"{folder}/results-{processes.rank()}.pt")
    leave_processes()
