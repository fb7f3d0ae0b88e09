"""Scaled dot-product attention for diffusers' `Attention`, without what the U-Net never uses."""

import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional as F


class PlainAttention:
    """Processor: queries, keys and values, SDPA, output projection, and nothing else.

    diffusers' own also divides by 1, applies a dropout of 0 and checks for masks and norms that
    are absent here; on small networks those extra passes over memory are a tenth of the time.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(n, queries, channels), and (n, keys, width) to attend to, or to itself.

        Raises:
            ValueError: a mask is given.
        """
        if attention_mask is not None:
            raise ValueError("the U-Net's attentions take no mask")
        other = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(other), attn.to_v(other))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))


def make_plain(*attentions: Attention) -> None:
    """Give diffusers' attentions the `PlainAttention` processor."""
    for attention in attentions:
        attention.set_processor(PlainAttention())
