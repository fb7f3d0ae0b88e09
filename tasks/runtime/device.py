"""Choosing a device by name."""

from typing import TYPE_CHECKING

from datasets.errors import UserError

if TYPE_CHECKING:
    import torch


AUTO = "auto"
"""The best device of this machine."""


def device_name(name: str) -> str:
    """`auto` as the name of the best device of this machine: cuda, mps or cpu."""
    if name != AUTO:
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_device(name: str) -> "torch.device":
    """The device of a name, after checking that it exists.

    Raises:
        UserError: the device does not exist, or the name is not a device's.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) < count:
            return device
        raise UserError(
            f"there is no device {name!r}: this machine has {count} CUDA devices, "
            "choose another one or --device cpu"
        )
    if device.type == "mps":
        if torch.backends.mps.is_available():
            return device
        raise UserError("there is no device 'mps': use an Apple machine, or --device cpu")
    raise UserError(f"{name!r} is not a device: choose cpu, cuda, cuda:N or mps")
