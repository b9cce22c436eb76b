"""Tensors that are spread over processes, on disk: each process writes its own part, any number of them reads it back.

Files of safetensors, by torch.distributed.checkpoint: its own format would keep its table of contents as a pickle.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from lmplay.train.parallel.world import World


def write_shards(folder: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Write all parts of `tensors` into `folder`, which every process sees and none has filled before."""
    if world.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    world.from_first(None)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(dict(tensors), storage_writer=writer, process_group=world.group)


def read_shards(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole or spread in any way, with what was written under their names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # each process reads for itself
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def names_in(folder: Path) -> dict[str, torch.Size]:
    """Name and whole shape of each tensor in `folder`."""
    metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    return {name: entry.size for name, entry in metadata.state_dict_metadata.items() if hasattr(entry, "size")}


def spread_like(example: Tensor, tensor: Tensor) -> Tensor:
    """The whole `tensor`, which every process has, spread as `example` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(example, DTensor):
        return tensor
    tensor = tensor.to(example.device)
    return distribute_tensor(tensor, example.device_mesh, example.placements, src_data_rank=None)


def take_optimizer_apart(optimizer: Optimizer) -> tuple[list[Any], dict[str, Tensor]]:
    """The settings of its groups, and its tensors by names that `put_optimizer_together` knows."""
    groups, tensors = [], {}
    for number, part in enumerate(_parts(optimizer)):
        content = part.state_dict()
        groups.append(content["param_groups"])
        for index, entries in content["state"].items():
            named = {f"optimizer/{number}/{index}/{name}": value for name, value in entries.items()}
            tensors.update({name: value for name, value in named.items() if value is not None})
    return groups, tensors


def put_optimizer_together(optimizer: Optimizer, groups: list[Any], folder: Path) -> None:
    """Let it go on with what was written; its tensors are spread as the parameters are now, in memory too."""
    contents: list[dict[str, Any]] = [{"state": {}, "param_groups": part} for part in groups]
    parameters = [[p for group in part.param_groups for p in group["params"]] for part in _parts(optimizer)]
    into = {}
    for name, shape in names_in(folder).items():
        table, number, index, entry = (*name.split("/", 3), "", "", "")[:4]
        if table != "optimizer":
            continue
        parameter = parameters[int(number)][int(index)].detach()
        into[name] = torch.zeros_like(parameter) if shape == parameter.shape else torch.zeros(shape)
        contents[int(number)]["state"].setdefault(int(index), {})[entry] = into[name]
    read_shards(folder, into)
    _load(optimizer, contents)


def spread_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """As `optimizer.load_state_dict(state)`, of a state that every process has whole."""
    contents = state.get("parts", [state])
    for part, content in zip(_parts(optimizer), contents, strict=True):
        parameters = [p.detach() for group in part.param_groups for p in group["params"]]
        for index, entries in content["state"].items():
            like = parameters[index]
            for name, value in entries.items():
                if value is not None and value.shape == like.shape:
                    entries[name] = spread_like(like, value)
    _load(optimizer, contents)


def _parts(optimizer: Optimizer) -> list[Optimizer]:
    """Muon is two of them in one."""
    parts: list[Optimizer] = getattr(optimizer, "parts", [optimizer])
    return parts


def _load(optimizer: Optimizer, contents: list[dict[str, Any]]) -> None:
    optimizer.load_state_dict({"parts": contents} if hasattr(optimizer, "parts") else contents[0])
