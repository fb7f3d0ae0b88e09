"""What is said in a clip, and when: written words, aligned with the speech.

Transcripts are files `CLIP_ID.txt` in a folder. A clip is a part of its source, cut by shots and
faces, so a source's words are not those of its clips: whoever gives words gives them per clip.
pocketsphinx aligns them; its English acoustic model and dictionary are part of its package.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from pocketsphinx import Decoder

from datasets.errors import UserError
from datasets.media import SAMPLE_RATE
from tasks.evaluate.closure import Spoken

CLOSING = ("P", "B", "M")
"""Phones of CMU's dictionary at which the lips touch."""
STEPS_PER_S = 100
"""The aligner's unit of time."""
NO_TRANSCRIPT = "no transcript is given"


class Transcripts:
    """The words of clips.

    Args:
        folder: holds `CLIP_ID.txt`; None: no transcripts are given.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise UserError(
                f"there is no folder of transcripts {folder}: give a folder that holds "
                "CLIP_ID.txt files"
            )
        self.folder = folder
        self._spoken = lru_cache(maxsize=256)(self._align)

    def text(self, clip_id: str) -> str | None:
        """What is said in a clip; None if it is not known.

        Raises:
            UserError: its file cannot be read.
        """
        path = self.folder / f"{clip_id}.txt" if self.folder else None
        if path is None or not path.is_file():
            return None
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"the transcript {path} cannot be read: {error}") from error

    def digest(self, clip_ids: Iterable[str]) -> str:
        """Digest of what is said in some clips; empty if nothing is known of any."""
        texts = {clip_id: self.text(clip_id) for clip_id in sorted(set(clip_ids))}
        if all(text is None for text in texts.values()):
            return ""
        return hashlib.sha256(repr(texts).encode()).hexdigest()

    def spoken(self, clip_id: str, speech: np.ndarray) -> Spoken:
        """When the sounds of a clip are spoken.

        Args:
            clip_id: the clip.
            speech: all of its speech, float32 (samples,) at 16 kHz.
        """
        text = self.text(clip_id)
        if text is None:
            return Spoken(reason=NO_TRANSCRIPT)
        return self._spoken(text, np.asarray(speech, np.float32).tobytes())

    def _align(self, text: str, samples: bytes) -> Spoken:
        return align(text, np.frombuffer(samples, np.float32))


def words_of(text: str) -> list[str]:
    """The words of a text as the dictionary writes them: small letters and apostrophes."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'"))


def align(text: str, speech: np.ndarray) -> Spoken:
    """Find when a text's sounds are spoken.

    Args:
        text: all that is said, in English, numbers written as words.
        speech: float32 (samples,) at 16 kHz.

    Returns:
        The sounds; with a reason if the text does not belong to the speech.
    """
    words = words_of(text)
    if not words:
        return Spoken(reason="the transcript is empty")
    # One for each text: the aligner adapts to what it hears, and numbers must not depend on order.
    decoder = Decoder(samprate=SAMPLE_RATE, lm=None, bestpath=False, loglevel="FATAL")
    unknown = [word for word in words if decoder.lookup_word(word) is None]
    if unknown:
        return Spoken(reason=f"the aligner's dictionary has no word {unknown[0]!r}")
    pcm = (np.clip(speech, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.set_align_text(" ".join(words))
    _decode(decoder, pcm)
    mismatch = Spoken(reason="the transcript does not fit the speech")
    if decoder.hyp() is None:
        return mismatch
    # The first pass finds the words, the second one the sounds within them.
    decoder.set_alignment()
    _decode(decoder, pcm)
    phones = [
        (phone.name, phone.start / STEPS_PER_S, (phone.start + phone.duration) / STEPS_PER_S)
        for word in decoder.get_alignment() or ()
        for phone in word
    ]
    said = [phone for phone in phones if phone[0] not in ("SIL", "+SPN+", "+NSN+")]
    if not said:
        return mismatch
    closures = tuple((begin, end) for name, begin, end in said if name in CLOSING)
    return Spoken(closures, said[0][1], said[-1][2])


def _decode(decoder: Decoder, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
