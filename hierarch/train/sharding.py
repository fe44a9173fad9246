"""FSDP2: each process holds a part of every weight (Zhao et al. 2023, arXiv:2304.11277).

Files hold whole tensors: `whole` puts the parts together, and `load_network` and `load_optimizer`
deal them out again. Where nothing is sharded they give back what they take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from hierarch.building import Backbone
from hierarch.nn.stage import Block


def shard(network: Backbone, mesh: DeviceMesh) -> Backbone:
    """The network itself, whose blocks' weights, and then all others, are shared out to all
    processes of the mesh."""
    every = init_device_mesh(mesh.device_type, (mesh.size(),))
    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=every)
    fully_shard(network, mesh=every)
    return network


def full(tensor: Tensor) -> Tensor:
    """A tensor, whole. All processes have to ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(state: Any, *, keep: bool = True) -> Any:
    """Nested data with whole tensors in place of parts. All processes have to ask for it together.

    Those that do not `keep` the tensors get None in their place, and need no memory for them.
    """
    if isinstance(state, DTensor):
        gathered = full(state.detach())
        return gathered.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: whole(value, keep=keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value, keep=keep) for value in state)
    return state


def parted(value: Any, like: Any) -> Any:
    """A whole tensor, shared out as another one of its shape is; anything else as it is."""
    if isinstance(value, Tensor) and isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.dtype), like.device_mesh, like.placements)
    return value


def load_network(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of whole tensors."""
    held = network.state_dict()
    network.load_state_dict({name: parted(value, held.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state dict of whole tensors."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shared = {
        index: {name: parted(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shared})
