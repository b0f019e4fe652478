"""A state_dict that torch.save wrote, or a checkpoint that has one."""

from __future__ import annotations

from typing import Any

from .._api.optional import missing
from .model import Model, Wishes
from .state_dicts import add_layers, flat


def read_torch(where: str, model: Model, wishes: Wishes) -> None:
    try:
        import torch
    except ImportError as error:
        raise missing("fastrnn.load_model of a PyTorch file", "torch", "torch", error) from error
    try:
        saved: Any = torch.load(where, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle brings about any
        text = "torch.load does not load with weights_only=True; save model.state_dict()"
        why = str(error).partition(".")[0]
        raise ValueError(f"path: expected a file of a state_dict, got {where!r}, which {text} ({why:.200})") from error
    add_layers({name: leaf for name, leaf in flat(saved) if isinstance(leaf, torch.Tensor)}, model, wishes)
