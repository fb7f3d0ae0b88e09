"""The parity cases pass, and the command that runs them counts what fails."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.faces.alignment import Aligner, align, crop_size
from models.audio.mel import mel_spectrogram
from tests.parity import CASES, case_align, case_mask
from tests.parity.__main__ import case_modules, case_names, main, run_case
from tests.parity.draw import draw_array, draw_faces, draw_pixels, draw_weight, relative_error
from tests.parity.outcome import Outcome

SHARED = Path(__file__).resolve().parents[3] / "shared"
FOLDERS = [SHARED / "parity", SHARED / "parity_steps", SHARED / "parity_avhubert"]
"""Beside the repository: too large for it, or newer."""


def same(first: Path, second: Path) -> bool:
    """Whether two files hold the same, which may be that neither is there."""
    contents = [path.read_bytes() if path.is_file() else None for path in (first, second)]
    return contents[0] == contents[1]


def further_cases() -> list[tuple[Path, str]]:
    """Cases next to the repository, folder and name, that are not the ones in it."""
    return [
        (folder, name)
        for folder in FOLDERS
        for name in (case_names(folder) if folder.is_dir() else [])
        if not all(
            same(CASES / f"{name}{end}", folder / f"{name}{end}") for end in (".npz", ".json")
        )
    ]


@pytest.mark.parametrize("name", case_names(CASES))
def test_case(name: str) -> None:
    outcome = run_case(CASES, name, case_modules())
    assert outcome.passed, outcome


def test_the_repository_has_cases_of_its_own() -> None:
    names = case_names(CASES)
    assert len(names) >= 12
    assert {"mask", "train_step_stage1", "train_step_stage2", "syncnet_train_step"} <= set(names)


@pytest.mark.parametrize(("folder", "name"), further_cases())
def test_further_case(folder: Path, name: str) -> None:
    outcome = run_case(folder, name, case_modules())
    assert outcome.passed, outcome


def write_align_case(folder: Path, resolution: int, **changes: Any) -> None:
    """An alignment case of any size, as our own code computes it."""
    rng = np.random.default_rng(0)
    face = np.array([[300.0, 220.0], [370.0, 215.0], [335.0, 255.0]])
    landmarks = np.stack([face + rng.normal(0, 3, (3, 2)) for _ in range(4)])
    matrices = {}
    for key, smooth in (("matrices_smooth", True), ("matrices_plain", False)):
        aligner = Aligner(resolution, smooth=smooth)
        matrices[key] = np.stack([aligner.matrix_of_points(each) for each in landmarks])
    image = np.repeat(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], 480, axis=0)
    image = np.repeat(image, 3, axis=2)
    arrays = {
        "landmarks": landmarks,
        "template": np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]]) * 2.8 * resolution / 256,
        "face_size": np.array(crop_size(resolution)),
        "image": image,
        f"aligned{resolution}": align(image, matrices["matrices_smooth"][0], resolution),
        **matrices,
    }
    np.savez(folder / "align_x.npz", **{**arrays, **changes})


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_alignment_of_any_size(resolution: int, tmp_path: Path) -> None:
    write_align_case(tmp_path, resolution)
    assert case_align.run(tmp_path, "align_x") < 1e-4


def test_an_alignment_case_means_what_it_says(tmp_path: Path) -> None:
    write_align_case(tmp_path, 128, face_size=np.array([210, 280]))
    with pytest.raises(ValueError, match="image aligned256: not there"):
        case_align.run(tmp_path, "align_x")
    write_align_case(tmp_path, 256, face_size=np.array([210, 300]))
    with pytest.raises(ValueError, match="not of the shape"):
        case_align.run(tmp_path, "align_x")
    write_align_case(tmp_path, 256, aligned256=np.zeros((256, 256, 3), np.uint8))
    assert case_align.run(tmp_path, "align_x") == float("inf")


def test_prefixes_are_unique() -> None:
    prefixes = [module.PREFIX for module in case_modules()]
    assert len(set(prefixes)) == len(prefixes)
    assert [len(prefix) for prefix in prefixes] == sorted(map(len, prefixes), reverse=True)


def test_counts_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 8_000)
    np.savez(tmp_path / "mel.npz", wav=wave, mel=mel_spectrogram(wave))
    shutil.copy(CASES / "mask_rows.json", tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"
    with np.load(tmp_path / "mel.npz") as arrays:
        np.savez(tmp_path / "mel_wrong.npz", wav=arrays["wav"], mel=arrays["mel"] + 0.01)
    np.savez(tmp_path / "mystery.npz", a=np.zeros(1))
    np.savez(tmp_path / "mel_broken.npz", mel=np.zeros(1))
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 3 failed"
    assert any("mystery" in line and "fail" in line for line in lines)


def test_an_empty_folder_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "absent")]) == 1
    assert "no case" in capsys.readouterr().out


def test_a_description_without_numbers_fails(tmp_path: Path) -> None:
    (tmp_path / "stable_syncnet_x.json").write_text(json.dumps({"salt": 1}))
    assert main([str(tmp_path)]) == 1


def test_draws_depend_on_salt_and_name() -> None:
    first = draw_weight(0, "a.weight", [4, 5])
    assert first.shape == (4, 5)
    assert not np.allclose(first, draw_weight(1, "a.weight", [4, 5]))
    assert abs(float(draw_weight(0, "n.weight", [1000]).mean()) - 1) < 0.02
    assert float(draw_weight(0, "bn.running_var", [1000]).min()) >= 1
    assert 0 <= draw_array(0, "video", [100]).min() < draw_array(0, "video", [100]).max() < 1
    assert 200 < draw_array(0, "lip", [1000]).max() < 255


def test_the_worst_array_is_the_one_that_takes_most_of_its_bar() -> None:
    outcome = Outcome.of({"a": (0.5, 1.0), "b": (2e-4, 1e-4), "c": (0.0, 0.0)})
    assert (outcome.array, outcome.error, outcome.passed) == ("b", 2e-4, False)
    assert str(outcome).split() == ["2.000e-04", "fail", "(bar", "1e-04)", "b"]
    assert Outcome.of({"a": (0.5, 1.0), "c": (0.0, 0.0)}).array == "a"
    assert Outcome.of({"a": (0.5, 1.0), "c": (1e-9, 0.0)}).array == "c"
    assert Outcome.of({"a": (9.0, 1.0), "c": (float("nan"), 1.0)}).array == "c"
    assert not Outcome.of(float("nan")).passed
    assert Outcome.of(1e-4).passed
    with pytest.raises(ValueError, match="nothing was compared"):
        Outcome.of({})


def test_rows_of_a_mask_are_compared_run_by_run(tmp_path: Path) -> None:
    mask = np.ones((3, 8))
    mask[1, :2] = mask[1, 5:] = 0
    assert case_mask.runs_of(mask[1] == 0) == [[0, 1], [5, 7]]
    path = tmp_path / "rows.json"
    for rows, wrong in (({"1": [[0, 1], [5, 7]]}, 0), ({"1": [[0, 7]]}, 1), ({}, 1)):
        path.write_text(json.dumps({"rows": rows}))
        assert case_mask.wrong_rows(path, mask) == wrong


def test_draws_of_steps_are_pictures() -> None:
    pixels, faces = draw_pixels(0, "target", [1000]), draw_faces(0, "faces", [1, 30, 30, 3])
    assert -1 <= pixels.min() < -0.9
    assert 0.9 < pixels.max() < 1
    assert (faces.min(), faces.max()) == (0, 255)


def test_relative_error_is_infinite_for_other_shapes_and_nan() -> None:
    assert relative_error(np.array([1.0, 2.1]), np.array([1.0, 2.0])) == pytest.approx(0.05)
    assert relative_error(np.zeros(2), np.zeros(3)) == float("inf")
    assert relative_error(np.array([np.nan]), np.array([1.0])) == float("inf")
