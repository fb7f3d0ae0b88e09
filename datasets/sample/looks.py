"""Twelve speakers of the sample clips: how they look and sound.

`datasets.sample.portrait` turns a `Look` into a person.
"""

from dataclasses import dataclass

from datasets.sample.voice import Voice


@dataclass(frozen=True)
class Look:
    """What makes a speaker look different. Colours are CIE Lab offsets, factors
    are 1 where nothing changes; sizes and shifts
    are of the portrait's 512 pixels."""

    voice: Voice
    mirror: bool = False
    skin: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Factor of lightness, offsets of a and b."""
    hair: tuple[float, float, float] = (1.0, 0.0, 0.0)
    suit_hue: float = 0.0
    """Degrees around the colour circle."""
    suit_light: float = 1.0
    lips: float = 4.0
    """How much redder than the skin: offset of a."""
    stubble: float = 0.0
    glasses: str = ""
    """"round", "square" or none."""
    jaw: float = 1.0
    nose: float = 1.0
    eyes_apart: float = 0.0
    eye_size: float = 1.0
    chin: float = 0.0
    hair_up: float = 0.0
    sepia: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    grain: float = 1.5
    backdrop: int = 0


LOOKS: tuple[Look, ...] = (
    Look(Voice(205, 1.12), grain=1.0, backdrop=0),
    Look(
        Voice(118, 0.92, 0.08, 0.95),
        mirror=True,
        skin=(0.9, 2, 4),
        hair=(0.42, -2, -14),
        suit_hue=205,
        suit_light=0.8,
        stubble=0.45,
        jaw=1.1,
        nose=1.15,
        chin=2.5,
        hair_up=-3,
        lips=10,
        backdrop=1,
    ),
    Look(
        Voice(178, 1.06, 0.14, 1.05),
        skin=(1.02, 3, -2),
        hair=(0.8, 24, 18),
        suit_hue=130,
        suit_light=0.75,
        glasses="round",
        eyes_apart=1.2,
        jaw=0.93,
        backdrop=2,
        grain=2.0,
    ),
    Look(
        Voice(101, 0.88, 0.05, 0.9),
        skin=(0.8, 4, 8),
        hair=(0.3, -3, -18),
        suit_hue=30,
        suit_light=1.05,
        jaw=1.08,
        nose=1.25,
        eye_size=0.93,
        lips=9,
        hair_up=-5,
        backdrop=3,
    ),
    Look(
        Voice(228, 1.18, 0.12, 1.1),
        mirror=True,
        skin=(1.04, 0, 2),
        hair=(1.25, -2, 8),
        suit_hue=300,
        suit_light=0.9,
        eye_size=1.12,
        jaw=0.92,
        chin=-3,
        lips=10,
        backdrop=4,
    ),
    Look(
        Voice(132, 0.95, 0.16, 1.0),
        skin=(0.97, 0, -2),
        hair=(0.95, -3, -22),
        suit_hue=215,
        suit_light=0.55,
        glasses="square",
        stubble=0.3,
        nose=1.1,
        chin=4,
        backdrop=5,
        lips=11,
        contrast=0.92,
        grain=3.0,
    ),
    Look(
        Voice(190, 1.08, 0.1, 0.95),
        skin=(0.95, 1, 2),
        hair=(0.6, 6, 2),
        suit_hue=80,
        sepia=0.75,
        contrast=0.95,
        grain=6.0,
        jaw=1.04,
        eyes_apart=-1.2,
        hair_up=4,
        backdrop=6,
    ),
    Look(
        Voice(146, 0.98, 0.08, 1.1),
        mirror=True,
        skin=(0.74, 3, 7),
        hair=(0.34, 0, -16),
        suit_hue=175,
        suit_light=0.95,
        nose=1.2,
        jaw=0.96,
        eye_size=1.08,
        lips=10,
        chin=2,
        backdrop=7,
    ),
    Look(
        Voice(215, 1.15, 0.2, 1.0),
        skin=(1.05, 5, -3),
        hair=(0.5, 10, 6),
        suit_hue=345,
        suit_light=0.7,
        eyes_apart=1.8,
        nose=0.85,
        hair_up=6,
        lips=8,
        backdrop=8,
        saturation=1.15,
    ),
    Look(
        Voice(110, 0.9, 0.12, 1.05),
        mirror=True,
        skin=(0.98, 4, 3),
        hair=(1.15, -3, -24),
        suit_hue=240,
        suit_light=0.85,
        glasses="square",
        jaw=1.12,
        chin=3,
        nose=1.05,
        backdrop=9,
        saturation=0.35,
        grain=7.0,
        contrast=1.06,
    ),
    Look(
        Voice(165, 1.03, 0.07, 1.15),
        skin=(0.86, 6, 10),
        hair=(0.75, 14, 16),
        suit_hue=55,
        suit_light=1.0,
        stubble=0.25,
        eyes_apart=-1.0,
        eye_size=1.05,
        jaw=1.0,
        hair_up=-4,
        backdrop=10,
        contrast=1.05,
    ),
    Look(
        Voice(240, 1.2, 0.1, 1.05),
        mirror=True,
        skin=(1.0, -1, 5),
        hair=(1.1, 3, 16),
        suit_hue=270,
        suit_light=1.0,
        glasses="round",
        jaw=0.9,
        chin=-2,
        nose=0.9,
        backdrop=11,
        saturation=0.85,
        grain=2.5,
    ),
)
BYSTANDER = Look(
    Voice(150),
    mirror=True,
    skin=(0.92, 2, 4),
    hair=(0.55, 2, -8),
    suit_hue=110,
    suit_light=0.6,
    jaw=1.05,
    nose=1.1,
    hair_up=2,
)
"""The second face in clips with two: no speaker's look, so it brings no speaker into a split."""
DRIVING_VOICE = Voice(158, 1.0, 0.11, 1.02)
"""A voice that is in no sample clip."""
