"""The cast of the sample."""

from itertools import combinations

from datasets.sample.backdrops import BACKDROPS
from datasets.sample.looks import BYSTANDER, DRIVING_VOICE, LOOKS


def test_there_are_twelve_speakers_with_a_voice_and_a_place_of_their_own() -> None:
    assert len(LOOKS) == 12
    assert sorted(look.backdrop for look in LOOKS) == list(range(len(BACKDROPS)))
    assert DRIVING_VOICE not in [look.voice for look in LOOKS]
    assert BYSTANDER not in LOOKS
    for one, other in combinations(LOOKS, 2):
        pitch = one.voice.pitch_hz / other.voice.pitch_hz
        throat = one.voice.throat / other.voice.throat
        assert abs(pitch - 1) > 0.03 or abs(throat - 1) > 0.03


def test_looks_differ_in_more_than_one_way() -> None:
    for one, other in combinations(LOOKS, 2):
        fields = vars(one).keys() - {"voice", "backdrop"}
        assert sum(getattr(one, name) != getattr(other, name) for name in fields) >= 5
