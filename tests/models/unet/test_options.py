import inspect
from typing import get_type_hints

from models.unet import LipSyncUNet
from models.unet.network import UNetOptions


def test_the_options_are_the_arguments_of_the_network() -> None:
    arguments = inspect.signature(LipSyncUNet.__init__).parameters
    assert get_type_hints(UNetOptions) == {
        name: each.annotation for name, each in arguments.items() if name != "self"
    }
