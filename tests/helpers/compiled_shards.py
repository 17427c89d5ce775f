"""Compiled blocks under FSDP2, in a fork that checks no signatures: dynamo cannot trace checks."""

import functools

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from afmlib.engine.distribution import _shard
from afmlib.launch import join_processes, leave_processes
from afmlib.nn.blocks import compile_blocks

__all__ = ["count_breaks"]


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, tokens):
        return tokens + self.linear(tokens).tanh()


def count_breaks(folder):
    """Saves the reasons of graph breaks, and the number of graphs."""
    join_processes("cpu")
    torch.manual_seed(0)
    network = nn.Sequential(nn.ModuleList(_Block() for _ in range(4)))
    network.forward = lambda tokens: functools.reduce(lambda x, block: block(x), network[0], tokens)
    tokens, graphs = torch.randn(2, 8, requires_grad=True), []
    whole = network(tokens).detach()
    _shard(network, init_device_mesh("cpu", (2,)), None)
    compile_blocks(network, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    for _ in range(2):
        sharded = network(tokens)
        sharded.square().sum().backward()
    torch.testing.assert_close(sharded.detach(), whole)
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    torch.save((breaks, len(graphs)), f"{folder}/compiled-{dist.get_rank()}.pt")
    leave_processes()
