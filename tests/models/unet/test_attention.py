"""The plain attention processor gives what diffusers' own gives."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

from models.unet.attention import make_plain


@pytest.mark.parametrize("width", [None, 6])
def test_equals_diffusers_processor(width: int | None) -> None:
    torch.manual_seed(0)
    attention = Attention(16, width, heads=4, dim_head=4)
    tokens = torch.randn(3, 7, 16)
    other = None if width is None else torch.randn(3, 5, width)
    expected = attention(tokens, other)
    make_plain(attention)
    torch.testing.assert_close(attention(tokens, other), expected)


def test_refuses_masks() -> None:
    attention = Attention(16, heads=4, dim_head=4)
    make_plain(attention)
    with pytest.raises(ValueError, match="no mask"):
        attention(torch.randn(1, 2, 16), attention_mask=torch.ones(1, 2))
