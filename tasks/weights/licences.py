"""Licences that bind what is made with weights, too: shown before the first use, accepted by name,
kept with every model that was trained through them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import UserError


@dataclass(frozen=True)
class Licence:
    """A licence that somebody must accept."""

    name: str
    """What `--accept-licence` takes."""
    terms: str
    """What it allows, as a clause that follows the name of what it is about."""


LICENCES = {
    each.name: each
    for each in (
        Licence(
            "av-hubert",
            "is under the AV-HuBERT licence of Meta: non-commercial research only, also for what "
            "is made with it; no sublicensing, no production use, no military, surveillance or "
            "biometric use",
        ),
    )
}
AUDIO = {"avhubert": "av-hubert"}
"""Audio encoder -> the licence of its published weights, whatever file they are in."""


def needed_licences(audio: str, audio_weights: str) -> list[Licence]:
    """The licences that a model's audio encoder brings.

    Args:
        audio: its kind, `LatentSyncConfig.audio`.
        audio_weights: file or name of published weights; empty: it has none.
    """
    name = AUDIO.get(audio)
    return [LICENCES[name]] if name and audio_weights else []


def check_accepted(needed: Sequence[Licence], accepted: Sequence[str], what: str) -> list[str]:
    """What to show of accepted licences before they are used, one sentence each.

    Args:
        needed: of `needed_licences`.
        accepted: the names that were given.
        what: what is under them, such as a recipe.

    Raises:
        UserError: one was not accepted, or there is no licence of that name.
    """
    for name in accepted:
        if name not in LICENCES:
            raise UserError(
                f"there is no licence {name!r} to accept: --accept-licence takes "
                f"{', '.join(LICENCES)}"
            )
    lines = []
    for each in needed:
        line = f"{what} {each.terms}"
        if each.name not in accepted:
            raise UserError(
                f"{line}. If that is what you want, give --accept-licence {each.name}; otherwise "
                "choose another recipe"
            )
        lines.append(line)
    return lines


def bundle_licence(bundle: Path) -> str:
    """What a bundle says about the licence that it inherits, a sentence; empty if there is none."""
    try:
        about = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        name = about.get("licence", "")
    except (OSError, ValueError, AttributeError):
        return ""
    known = LICENCES.get(name)
    return (
        f"this model {known.terms}" if known else f"this model has the licence {name}" * bool(name)
    )
