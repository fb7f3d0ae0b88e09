"""What must be equal for two models' numbers to be compared, and for work to be taken up again."""

from pathlib import Path

from datasets.store.manifest import config_digest
from tasks.recipes.evaluation import PROTOCOL, EvaluationConfig
from tasks.weights.bundle import bundle_digest
from tasks.weights.by_name import weights_digest

JUDGES = ("syncnet", "stable_syncnet", "inception", "i3d", "lpips")
LATER = ("videomae", "identity")
"""Judges that the digest names only where they are given, so that digests of before still hold."""


def settings(config: EvaluationConfig) -> dict[str, object]:
    """The part of a configuration that the generated frames depend on."""
    return {name: getattr(config, name) for name in ("steps", "guidance", "seed", "reference")}


def protocol_digest(
    config: EvaluationConfig, tests: str, judge_bundle: Path, transcripts: str = ""
) -> str:
    """Digest of everything that must be equal for two models' numbers to be compared.

    Args:
        config: how they were evaluated.
        tests: digest of the clips.
        judge_bundle: the bundle whose sync network judges.
        transcripts: digest of what is said in the clips.
    """
    given = {name: getattr(config, f"{name}_weights") for name in JUDGES}
    used = {name: weights_digest(weights) if weights else "" for name, weights in given.items()}
    for name in LATER:
        if weights := getattr(config, f"{name}_weights"):
            used[name] = weights_digest(weights)
    if config.protocol != "own":
        used["protocol"] = config.protocol
    if not config.syncnet_weights:
        folder = judge_bundle / "syncnet"
        used["judge"] = bundle_digest(folder) if folder.is_dir() else ""
    limits = {name: getattr(config, name) for name in ("image_frames", "video_windows")}
    return config_digest(
        {
            "version": PROTOCOL,
            "tests": tests,
            "transcripts": transcripts,
            **settings(config),
            **limits,
            **used,
        }
    )
