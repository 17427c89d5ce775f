"""The blocks of a network, one by one: recomputed in the backward pass, or compiled.

The blocks are the elements of module lists, such as those of a transformer. Only the ``forward`` of
a block changes, so its hooks (those of FSDP2) and the names of its parameters stay.
"""

__all__ = ["blocks_of", "checkpoint_blocks", "compile_blocks", "prepare_blocks"]

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

RECOMPILE_LIMIT = 64


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Returns the elements of all module lists of a network, the innermost ones first."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)][::-1]
    blocks = dict.fromkeys(block for blocks in lists for block in blocks)
    # Lists have no forward pass.
    return [block for block in blocks if not isinstance(block, nn.ModuleList | nn.ModuleDict)]


def _innermost_blocks(network: nn.Module) -> list[nn.Module]:
    """Returns the blocks without blocks in them: nothing is recomputed or compiled twice."""
    blocks = blocks_of(network)
    found = set(blocks)
    return [
        block for block in blocks if not any(inner in found for inner in list(block.modules())[1:])
    ]


def checkpoint_blocks(network: nn.Module) -> int:
    """Makes a network keep the inputs of its blocks only, and recompute the rest when needed.

    Of nested blocks, these are the innermost ones. The gradients are the same bit for bit, at
    the cost of one more forward pass.

    Returns:
        The number of blocks.
    """
    blocks = _innermost_blocks(network)
    for block in blocks:
        block.forward = functools.partial(_checkpointed, block, block.forward)
    return len(blocks)


def _checkpointed(
    block: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    if torch.compiler.is_compiling():  # The graph remembers what is frozen.
        return checkpoint(forward, *arguments, use_reentrant=False, **named)
    # A network that was frozen in the forward pass is trainable again in the backward pass.
    is_frozen = [parameter for parameter in block.parameters() if not parameter.requires_grad]
    # Such as the differences of a penalty.
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return checkpoint(
        forward,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _AsBefore(is_frozen, modes)),
        **named,
    )


class _AsBefore:
    """Freezes parameters and enters modes. It can be entered again, as a second derivative does."""

    def __init__(self, frozen: Sequence[nn.Parameter], modes: Sequence[TorchFunctionMode]) -> None:
        self.frozen = frozen
        self.modes = modes

    def __enter__(self) -> None:
        self.trainable = [parameter for parameter in self.frozen if parameter.requires_grad]
        for parameter in self.trainable:
            parameter.requires_grad_(False)
        self.entered = contextlib.ExitStack()
        for mode in self.modes:
            self.entered.enter_context(mode)

    def __exit__(self, *error: object) -> None:
        self.entered.close()
        for parameter in self.trainable:
            parameter.requires_grad_(True)


def compile_blocks(network: nn.Module, **options: Any) -> None:
    """Compiles each innermost block of a network, or the whole network if it has none.

    Equal blocks share their compilations: one for each way in which a block is called, such as
    without gradients, or for the first token only. Call it after `checkpoint_blocks`. Under a
    transform such as ``torch.func.jvp``, blocks run without compilation.

    Args:
        network: The network.
        options: The options of ``torch.compile``.
    """
    # Two players with dynamic shapes need about 16. Beyond the limit, torch falls back to eager.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, RECOMPILE_LIMIT)
    for block in _innermost_blocks(network) or [network]:
        block.forward = functools.partial(
            _compiled, block.forward, torch.compile(block.forward, **options)
        )


def _compiled(
    eager: Callable[..., Any], compiled: Callable[..., Any], *arguments: Any, **named: Any
) -> Any:
    # Torch compiles nothing under a transform, nor ever again a function that it met there first.
    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return (eager if is_transformed else compiled)(*arguments, **named)


def prepare_blocks(network: nn.Module, recompute: bool, compiled: bool) -> None:
    """Checkpoints and compiles the blocks of a network, as a config says."""
    if recompute:
        checkpoint_blocks(network)
    if compiled:
        compile_blocks(network)
