"""Content that is in two splits: then every number measured on the test split is false."""

import hashlib
from collections.abc import Iterator

from datasets.errors import UserError
from datasets.shards.clip_index import Clip, ClipTable
from datasets.shards.index import FOLDER
from datasets.store.protocol import Store

SHOWN = 3
"""Pairs that are named."""


def clips_in_two_splits(store: Store, clips: ClipTable) -> Iterator[tuple[Clip, Clip]]:
    """Pairs of clips of different splits with the same pictures, byte for byte.

    Only clips whose videos have equal sizes are read, so a sound dataset costs nothing.

    Args:
        store: the dataset's store.
        clips: the clips of all splits.
    """
    seen: dict[tuple[int, str], Clip] = {}
    for number in clips.same_size_elsewhere():
        place, clip = clips.place(number, "mp4"), clips[number]
        with store.open(f"{FOLDER}/{place.shard}") as file:
            file.seek(place.offset)
            digest = hashlib.sha256(file.read(place.size)).hexdigest()
        other = seen.setdefault((place.size, digest), clip)
        if other.split != clip.split:
            yield other, clip


def refuse_leaks(store: Store, clips: ClipTable) -> None:
    """Check that no content is in two splits.

    Raises:
        UserError: some is.
    """
    pairs = list(clips_in_two_splits(store, clips))
    if not pairs:
        return
    named = "; ".join(
        f"{one.clip_id} ({one.path}, {one.split}) and {other.clip_id} ({other.path}, {other.split})"
        for one, other in pairs[:SHOWN]
    )
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    raise UserError(
        f"{len(pairs)} clips of {store.url} have the same content as one of another split: "
        f"{named}{more}; numbers measured on them would be false: refresh the dataset again, which "
        "publishes each content once"
    )
