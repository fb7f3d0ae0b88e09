"""The parity cases pass, and the command that runs them counts what fails."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity.__main__ import case_modules, case_names, main, run_case
from tests.parity.draw import draw_array, draw_weight, relative_error

SHARED = Path(__file__).resolve().parents[2] / "shared" / "parity"
CASES = case_names(SHARED) if SHARED.is_dir() else []


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, shared: Path) -> None:
    error, bar = run_case(shared / "parity", name, case_modules())
    assert error <= bar


def test_prefixes_are_unique() -> None:
    prefixes = [module.PREFIX for module in case_modules()]
    assert len(set(prefixes)) == len(prefixes)
    assert [len(prefix) for prefix in prefixes] == sorted(map(len, prefixes), reverse=True)


def test_counts_and_exit_code(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shared / "parity" / "mel.npz", tmp_path)
    shutil.copy(shared / "parity" / "mask_rows.json", tmp_path)
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


def test_relative_error_is_infinite_for_other_shapes_and_nan() -> None:
    assert relative_error(np.array([1.0, 2.1]), np.array([1.0, 2.0])) == pytest.approx(0.05)
    assert relative_error(np.zeros(2), np.zeros(3)) == float("inf")
    assert relative_error(np.array([np.nan]), np.array([1.0])) == float("inf")
