"""Small files in the published formats become a bundle that the flows take as it is."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from datasets.media import VideoWriter, probe, write_flac
from datasets.store.atomic import content_digest
from flows.import_weights import main
from models.audio.whisper_tokens import WhisperTokens
from models.autoencoder import KLAutoencoder
from models.convert.unet import unet_to_reference
from models.latentsync.model import LatentSync
from models.syncnet.stable import Config, EncoderConfig, StableSyncNet
from models.syncnet.stable_blocks import Factor
from models.unet import LipSyncUNet
from tasks.evaluate.judge import load_sync_judge
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.video import lip_sync_video
from tasks.registry.import_weights import build_bundle, register_bundle
from tasks.registry.third_party import Files
from tasks.registry.versions import CANDIDATE, Registry, resolve
from tests.models.audio.test_whisper_tokens import openai_weights
from tests.models.autoencoder.test_kl import old_names
from tests.support.fake_bundle import store_uri
from tests.support.portrait import moving
from tests.support.small_models import PUBLISHED, shaken

__all__ = ["store_uri"]

CPU = torch.device("cpu")
AUDIO: list[Factor] = [[2, 1], 2, 2, 1, 2, 2, [2, 3]]
VISUAL: list[Factor] = [[1, 2], 2, 2, 2, 2, 2, 2, 2]


def syncnet_config(channels: int = 48) -> Config:
    """The published strides, so the published windows, with few channels."""

    def encoder(inputs: int, factors: list[Factor]) -> EncoderConfig:
        widths = [32] * (len(factors) - 1) + [64]
        blocks = [0] * len(factors)
        return {
            "in_channels": inputs,
            "block_out_channels": widths,
            "downsample_factors": factors,
            "attn_blocks": blocks,
            "dropout": 0.0,
        }

    return {"audio_encoder": encoder(1, AUDIO), "visual_encoder": encoder(channels, VISUAL)}


def write_unet(path: Path, **options: Any) -> LipSyncUNet:
    torch.manual_seed(0)
    unet = LipSyncUNet(**{**PUBLISHED, "cross_attention_dim": 16, **options})
    shaken(unet)
    torch.save(unet_to_reference(unet, 5), path)
    return unet


def write_syncnet(path: Path, config: Config) -> StableSyncNet:
    torch.manual_seed(3)
    network = StableSyncNet(config)
    torch.save({"global_step": 5, "state_dict": network.state_dict()}, path)
    return network


def write_whisper(path: Path, width: int) -> None:
    torch.manual_seed(2)
    dims = {"n_audio_state": width, "n_audio_layer": 2, "n_audio_head": 2}
    dims |= {"n_mels": 80, "n_audio_ctx": 50, "n_text_ctx": 9}
    weights = openai_weights(WhisperTokens(width=width, layers=2, heads=2, context=50))
    state = {f"encoder.{key}": value for key, value in weights.items()}
    torch.save({"dims": dims, "model_state_dict": state}, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as they are published: latentsync_unet.pt, vae, tiny.pt, stable_syncnet.pt."""
    folder = tmp_path_factory.mktemp("weights")
    write_unet(folder / "unet.pt")
    write_whisper(folder / "tiny.pt", 16)
    write_whisper(folder / "base.pt", 32)
    torch.manual_seed(1)
    vae = KLAutoencoder(block_out_channels=(32,) * 4, layers_per_block=1).vae
    save_file(old_names(vae.state_dict()), folder / "vae.safetensors")
    write_syncnet(folder / "syncnet.pt", syncnet_config())
    (folder / "syncnet.json").write_text(json.dumps(syncnet_config()))
    return folder


def files(folder: Path, **changes: str) -> Files:
    names = {"unet": "unet.pt", "vae": "vae.safetensors", "whisper": "tiny.pt"}
    names |= {"syncnet": "syncnet.pt", "syncnet_config": "syncnet.json"}
    return Files(**{key: str(folder / name) for key, name in {**names, **changes}.items()})


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "published"
    build_bundle(output, files(folder), 256, lambda line: None)
    return output


def test_a_video_gets_other_lips(bundle: Path, tmp_path: Path) -> None:
    video, audio = tmp_path / "video.mp4", tmp_path / "speech.flac"
    with VideoWriter(video, 320, 320, 25) as writer:
        for frame in moving(6):
            writer.write(frame)
    write_flac(audio, (0.3 * np.sin(np.arange(3840) / 9)).astype(np.float32), 16_000)
    found = resolve(str(bundle), "sqlite:///unused.db")
    done = lip_sync_video(video, audio, tmp_path / "out.mp4", found, steps=1, guidance=1.0)
    assert (done.frames, done.faces_found) == (6, 6)
    assert probe(done.output).width == 320


def test_the_networks_are_those_of_the_files(bundle: Path, folder: Path) -> None:
    model: Any = LatentSync.load(bundle)
    checkpoint = torch.load(folder / "unet.pt", weights_only=True)["state_dict"]
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, checkpoint[name]), name
    assert model.unet.config.motion_resolutions == [1, 2]
    torch.manual_seed(1)
    vae = KLAutoencoder(block_out_channels=(32,) * 4, layers_per_block=1).eval()
    picture = torch.rand(1, 3, 256, 256)
    # The model computes in another memory order.
    torch.testing.assert_close(model.encode(picture), vae.encode(picture), atol=1e-4, rtol=0)
    wave = torch.rand(16_000) - 0.5
    theirs = WhisperTokens.from_file(folder / "tiny.pt")
    assert torch.equal(model.tokens(wave, 25), theirs.encode(wave, 25))


def test_its_sync_network_judges(bundle: Path, folder: Path) -> None:
    judge: Any = load_sync_judge("", bundle, CPU)
    state = torch.load(folder / "syncnet.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[key]) for key, value in judge.network.state_dict().items())
    curve = judge.curve(np.zeros((33, 64, 64, 3), np.uint8), np.zeros(33 * 640, np.float32))
    assert np.isfinite(curve.distances).all()


def test_it_says_where_it_is_from_and_that_nothing_was_trained(bundle: Path, folder: Path) -> None:
    about = json.loads((bundle / "bundle.json").read_text())
    assert "nothing was trained here" in about["notes"][0]
    assert about["resolution"] == 256
    for part, name in {"unet": "unet.pt", "vae": "vae.safetensors", "whisper": "tiny.pt"}.items():
        assert about["files"][part]["file"] == name
        assert about["files"][part]["sha256"] == content_digest(folder / name)


def test_it_can_be_registered_once(bundle: Path, store_uri: str) -> None:
    version = register_bundle(bundle, "published", store_uri)
    assert register_bundle(bundle, "published", store_uri) == version
    assert Registry(store_uri).alias("published", CANDIDATE) == version
    assert FaceGenerator(resolve("models:/published@candidate", store_uri)).resolution == 256


@pytest.fixture(scope="module")
def broken(folder: Path) -> Path:
    """The same folder with files that look right and are not."""
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, folder / "other.pt")
    image = LipSyncUNet(**{**PUBLISHED, "in_channels": 4, "motion_resolutions": []})
    torch.save(image.state_dict(), folder / "sd.pt")
    write_unet(folder / "wide.pt", in_channels=25, out_channels=8)
    write_unet(folder / "short.pt", motion_max_frames=8)
    config = syncnet_config(64)
    write_syncnet(folder / "latent.pt", config)
    (folder / "latent.json").write_text(json.dumps(config))
    (folder / "list.json").write_text("[]")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"unet": "absent.pt"}, "there is no file"),
        ({"unet": "empty"}, "does not hold model.safetensors or"),
        ({"unet": "other.pt"}, "not a LatentSync U-Net"),
        ({"unet": "sd.pt"}, "Stable Diffusion's U-Net, which has never heard speech"),
        ({"unet": "wide.pt"}, "takes 25 channels and gives 8"),
        ({"unet": "short.pt"}, "sees 8 frames at most, a window has 16"),
        ({"whisper": "base.pt"}, "hears tokens 16 wide, the Whisper in .* gives 32"),
        ({"whisper": "unet.pt"}, "not a Whisper checkpoint"),
        ({"vae": "unet.pt"}, "not Stable Diffusion's autoencoder"),
        ({"syncnet": "other.pt"}, "does not fit StableSyncNet"),
        ({"syncnet": "latent.pt", "syncnet_config": "latent.json"}, "16 RGB frames"),
        ({"syncnet_config": "list.json"}, "is not a StableSyncNet configuration"),
        ({"syncnet_config": "nonsense"}, "expected one of"),
    ],
)
def test_one_sentence_for_every_mistake(
    changes: dict[str, str],
    match: str,
    broken: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = files(broken, **changes)
    arguments = ["--unet", given.unet, "--vae", given.vae, "--whisper", given.whisper]
    arguments += ["--syncnet", given.syncnet, "--syncnet-config", given.syncnet_config]
    assert main([str(tmp_path / "out"), *arguments, "--resolution", "256"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(match, said), said
    assert not list(tmp_path.iterdir())


def test_resolutions_and_places_that_do_not_fit(
    folder: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, expected in (
        (["--unet", "latentsync-1.6-unet", "--resolution", "256"], "give --resolution 512"),
        (["--unet", str(folder / "unet.pt"), "--resolution", "128"], "256 (LatentSync 1.5) or 512"),
    ):
        assert main([str(tmp_path / "out"), *arguments]) == 2
        assert expected in capsys.readouterr().err
    assert main([str(bundle), "--unet", "x", "--resolution", "256"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_bundle_that_is_there_can_be_registered_later(
    folder: Path, tmp_path: Path, store_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    (tmp_path / "bundle.tmp").write_text("precious")
    given = files(folder)
    arguments = [str(output), "--resolution", "256", "--tracking-uri", store_uri]
    for name in ("unet", "vae", "whisper", "syncnet"):
        arguments += [f"--{name}", getattr(given, name)]
    arguments += ["--syncnet-config", given.syncnet_config]
    assert main([*arguments, "--register", "x y/z"]) == 2
    assert "'x y/z' is not a name for a model" in capsys.readouterr().err
    assert not output.exists()
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert main([*arguments, "--register", "mine"]) == 0
    said = capsys.readouterr().out
    assert "already exists and is used as it is" in said
    assert "registered mine version 1" in said
    assert (tmp_path / "bundle.tmp").read_text() == "precious"
