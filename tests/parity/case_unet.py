"""The U-Net of the reference at small size: stage 1, stage 2 and the efficient stage 2."""

from pathlib import Path

import torch

from models.convert.unet import config_from_reference, unet_to_reference
from models.unet import LipSyncUNet
from tests.parity.draw import draw_input, fill, read_case, relative_error

PREFIX = "unet"


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    unet = LipSyncUNet(**config_from_reference(case["config"]))
    drawn = fill(unet, case["salt"], case["state_dict"])
    back = unet_to_reference(unet)["state_dict"]
    if any(not torch.equal(back[key], value) for key, value in drawn.items()):
        raise ValueError("the weights do not survive the way there and back")
    unet.eval()
    sample = unet(
        draw_input(case["salt"], "latents", case["latents"]),
        torch.tensor(case["timesteps"]),
        draw_input(case["salt"], "audio", case["audio"]),
    )
    return relative_error(sample, arrays["sample"])
