"""Operators for which the host would wait for a GPU, counted on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAIT = {"_local_scalar_dense", "nonzero", "bincount", "_unique2", "unique_dim", "masked_select", "repeat_interleave"}
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # wait where they are given booleans


class Waits(TorchDispatchMode):
    """Collects the names of such operators. Copies to the device and the operators of the CPU's own paths are not seen.

    Attributes:
        seen: Names, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func._schema.name).partition("::")[2]
        masks = [x for x in args[1] if isinstance(x, Tensor) and x.dtype is torch.bool] if name in MASKED else []
        if name in WAIT or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))
