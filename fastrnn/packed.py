"""Packed sequences: see pack and unpack."""

from ._api.packed import Packed, pack, unpack

__all__ = ["Packed", "pack", "unpack"]
