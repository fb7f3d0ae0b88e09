"""The device that somebody named, if it is there."""

from typing import TYPE_CHECKING

from datasets.errors import UserError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """The device of that name, if it is there.

    Raises:
        UserError: it is not, or the name is none.
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
            f"the device {name!r} is not there: this machine has {count} CUDA devices, "
            "choose another one or --device cpu"
        )
    if device.type == "mps":
        if torch.backends.mps.is_available():
            return device
        raise UserError("the device 'mps' is not there: it needs an Apple machine, or --device cpu")
    raise UserError(f"{name!r} is no device: choose cpu, cuda, cuda:N or mps")
