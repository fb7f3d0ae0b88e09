"""What faces hand on to the next ones of their stretch, so that a job that was interrupted goes on.

A chain paints windows one after the other, each shown a frame that it painted before. All it needs
to go on is the latents of the last few frames. Colours are matched with those of the last few, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tasks.lipsync.colour_match import ColourMatch


@dataclass(frozen=True)
class Link:
    """The place between two windows of a chain."""

    done: int = 0
    """Frames of the sequence that are painted."""
    past: tuple[Tensor, ...] = ()
    """Latents (1, c, r, r) of the last ones, oldest first."""


@dataclass
class ChainMemory:
    """The chains of one stretch, one for each of its interleaved sequences, and its colours.

    Each chain is remembered at the beginning of the window that holds its next frame.
    """

    stretch: int = -1
    """Position of the stretch's first frame in the output."""
    links: dict[int, Link] = field(default_factory=dict)
    """Number of a sequence -> where its chain stands."""
    colours: ColourMatch = field(default_factory=ColourMatch)
    """Of the frames so far."""

    def enter(self, stretch: int) -> None:
        """Begin a stretch, or go on in it: nothing is handed from one to another."""
        if stretch != self.stretch:
            self.stretch, self.links, self.colours = stretch, {}, ColourMatch()

    def link(self, way: int, most: int) -> Link:
        """Where a sequence can be gone on with, no later than after `most` of its frames."""
        found = self.links.get(way, Link())
        return found if found.done <= most else Link()

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for a file; see `of_arrays`."""
        found = {"stretch": np.array(self.stretch), "position": np.array(self.colours.position)}
        found["planes"] = np.array(self.colours.planes, np.float32).reshape(-1, 3, 3)
        for way, link in self.links.items():
            found[f"done{way}"] = np.array(link.done)
            past = [each.cpu().numpy() for each in link.past]
            found[f"past{way}"] = np.stack(past) if past else np.empty(0, np.float32)
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ChainMemory":
        """What `arrays` gave.

        Raises:
            KeyError, ValueError: it is something else.
        """
        links = {}
        for name, done in arrays.items():
            if name.startswith("done"):
                way = int(name.removeprefix("done"))
                past = torch.from_numpy(np.array(arrays[f"past{way}"]))
                links[way] = Link(int(done), tuple(past))
        colours = ColourMatch(int(arrays["position"]), arrays["planes"].reshape(-1, 3, 3))
        return cls(int(arrays["stretch"]), links, colours)
