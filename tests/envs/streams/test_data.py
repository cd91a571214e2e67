from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest

from clrl.envs.streams import data
from clrl.errors import UsageError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
real_mnist = pytest.mark.skipif(
    not os.environ.get("CLRL_DATA"), reason="CLRL_DATA does not name a folder with MNIST"
)


def load() -> data.Dataset:
    """MNIST as it would be read by a fresh process."""
    return data.mnist.__wrapped__("symmetric", "train")  # type: ignore[no-any-return]


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], bytes]) -> list[str]:
    """Have the network answer; returns the list of addresses asked for, as they come."""
    asked: list[str] = []

    def downloader(self: object, url: str, output_file: str, pooch: object) -> None:
        asked.append(url)
        Path(output_file).write_bytes(answer(url.rsplit("/", 1)[1]))

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", downloader)
    return asked


def test_scaled_by_hand() -> None:
    pixels = np.array([[[0, 4], [8, 16]]], np.uint8)
    np.testing.assert_array_equal(data.scaled(pixels, 16, "symmetric"), [[-1, -0.5, 0, 1]])
    unit = data.scaled(pixels, 16, "unit")
    np.testing.assert_array_equal(unit, [[0, 0.25, 0.5, 1]])
    assert unit.dtype == np.float32
    with pytest.raises(UsageError, match="input_range: expected one of symmetric, unit, got"):
        data.scaled(pixels, 16, "wide")  # type: ignore[arg-type]


def test_digits() -> None:
    symmetric, unit = data.digits("symmetric"), data.digits("unit")
    assert symmetric.inputs.shape == (1797, 64) and symmetric.inputs.dtype == np.float32
    assert symmetric.labels.dtype == np.int64 and symmetric.num_classes == 10
    assert (symmetric.inputs.min(), symmetric.inputs.max()) == (-1, 1)
    assert (unit.inputs.min(), unit.inputs.max()) == (0, 1)
    # The first image of the set is a 0 whose first row is 0 0 5 13 9 1 0 0 of 16.
    np.testing.assert_array_equal(unit.inputs[0, :8] * 16, [0, 0, 5, 13, 9, 1, 0, 0])
    np.testing.assert_array_equal(symmetric.labels[:4], [0, 1, 2, 3])


def test_prepared_once_and_not_to_be_written() -> None:
    assert data.digits("unit") is data.digits("unit")
    assert data.digits("unit") is not data.digits("symmetric")
    for array in (data.digits("unit").inputs, data.digits("unit").labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("sub", ["", "mnist"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("where", ["CLRL_DATA", "cache"])
def test_found_in_a_folder(
    tiny_mnist: dict[str, bytes],
    tiny_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    compressed: bool,
    sub: str,
) -> None:
    put(tmp_path / where / sub, tiny_mnist if compressed else tiny_files)
    if where == "CLRL_DATA":
        monkeypatch.setenv("CLRL_DATA", str(tmp_path / where))
    loaded = load()
    # 51/255 is 0.2, so the six pixels of the first image are -1, -0.6, ..., 1.
    np.testing.assert_allclose(loaded.inputs[0], [-1, -0.6, -0.2, 0.2, 0.6, 1], rtol=1e-6)
    np.testing.assert_array_equal(loaded.inputs[1], [1, -1, 1, -1, 1, -1])
    np.testing.assert_array_equal(loaded.labels, [7, 2])
    assert not loaded.inputs.flags.writeable


def test_the_named_folder_comes_before_the_cache(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "cache", tiny_mnist)
    put(tmp_path / "named", dict.fromkeys(tiny_mnist, b"not gzip"))
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "named"))
    with pytest.raises(UsageError, match=f"named/{IMAGES}.gz: not an intact gzip file"):
        load()


def test_an_empty_variable_counts_as_unset(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "cache", tiny_mnist)
    monkeypatch.setenv("CLRL_DATA", "")
    assert len(load().labels) == 2


@pytest.mark.parametrize(
    ("files", "missing"),
    [([], f"no {IMAGES} and no {LABELS} "), ([IMAGES], f"no {LABELS} ")],
)
def test_a_named_folder_without_the_files_is_an_error_not_a_download(
    tiny_mnist: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    missing: str,
) -> None:
    put(tmp_path / "cache", tiny_mnist)
    put(tmp_path / "named", {name: b"" for name in files})
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "named"))
    with pytest.raises(UsageError) as caught:
        load()
    text = str(caught.value)
    assert text.startswith(f"CLRL_DATA={tmp_path / 'named'}: {missing}") and "\n" not in text


def test_a_named_folder_that_is_not_there(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="CLRL_DATA=.*nowhere: there is no such folder"):
        load()


def test_a_folder_with_other_content_is_refused_by_file(
    tiny_mnist: dict[str, bytes],
    tiny_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = tiny_files[LABELS][:-1] + b"\5"
    put(tmp_path / "named", {IMAGES: tiny_files[IMAGES], LABELS: changed})
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "named"))
    with pytest.raises(UsageError, match=f"named/{LABELS}: MD5 of the uncompressed content"):
        load()


def test_labels_under_the_name_of_images_are_refused(
    tiny_mnist: dict[str, bytes],
    tiny_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(tmp_path / "named", {IMAGES: tiny_files[LABELS], LABELS: tiny_files[IMAGES]})
    monkeypatch.setenv("CLRL_DATA", str(tmp_path / "named"))
    with pytest.raises(UsageError, match=f"named/{IMAGES}: expected .* images.* holds labels"):
        load()


def test_downloads_into_the_cache_once(
    tiny_mnist: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    announced: list[logging.LogRecord] = []  # pooch writes these to a stream of its own
    monkeypatch.setattr(pooch.get_logger(), "handle", announced.append)
    asked = serve(monkeypatch, tiny_mnist.__getitem__)
    assert len(load().labels) == 2
    assert asked == [f"{data.MIRROR}{name}.gz" for name in (IMAGES, LABELS)]
    assert sorted(os.listdir(tmp_path / "cache" / "mnist")) == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert len(load().labels) == 2
    assert len(asked) == 2
    assert capfd.readouterr() == ("", "")
    assert announced == []


def test_the_download_has_a_time_limit(
    tiny_mnist: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    init = pooch.HTTPDownloader.__init__

    def spy(self: object, *args: object, **kwargs: object) -> None:
        given.append(kwargs["timeout"])
        init(self, *args, **kwargs)

    monkeypatch.setattr(pooch.HTTPDownloader, "__init__", spy)
    serve(monkeypatch, tiny_mnist.__getitem__)
    load()
    assert given == [data.TIMEOUT] * 2


def test_only_what_is_missing_is_downloaded(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when an earlier download stopped half way, or the first file came from elsewhere.
    images = f"{IMAGES}.gz"
    other_wrapping = gzip.compress(gzip.decompress(tiny_mnist[images]), 1)
    put(tmp_path / "cache" / "mnist", {images: other_wrapping})
    asked = serve(monkeypatch, tiny_mnist.__getitem__)
    load()
    assert asked == [f"{data.MIRROR}{LABELS}.gz"]


@pytest.mark.parametrize("failure", ["offline", "cut short", "wrong content"])
def test_a_failed_download_names_three_ways_out_and_leaves_nothing(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def answer(name: str) -> bytes:
        if failure == "offline":
            raise ConnectionError("no route\nto host")
        return tiny_mnist[name][:-3] if failure == "cut short" else b"<html>sign in</html>"

    serve(monkeypatch, answer)
    level = pooch.get_logger().level
    with pytest.raises(UsageError) as caught:
        load()
    text = str(caught.value)
    assert f"no {IMAGES} in the cache" in text and "\n" not in text
    for way in ("set CLRL_DATA", str(tmp_path / "cache" / "mnist"), "go online"):
        assert way in text
    assert os.listdir(tmp_path / "cache" / "mnist") == []
    assert pooch.get_logger().level == level


def test_a_cache_that_cannot_be_made_is_no_crash(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    serve(monkeypatch, tiny_mnist.__getitem__)
    with pytest.raises(UsageError, match="set CLRL_DATA"):
        load()


@real_mnist
@pytest.mark.parametrize(("split", "size"), [("train", 60_000), ("test", 10_000)])
def test_real_mnist(split: str, size: int) -> None:
    loaded = data.mnist("symmetric", split)  # type: ignore[arg-type]
    assert loaded.inputs.shape == (size, 784) and loaded.inputs.dtype == np.float32
    assert (loaded.inputs.min(), loaded.inputs.max()) == (-1, 1)
    assert loaded is data.mnist("symmetric", split)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.unique(loaded.labels), np.arange(10))
    # Mean and standard deviation of MNIST's training pixels are well known: .1307, .3081.
    if split == "train":
        # The inputs are 2 p - 1.
        assert loaded.inputs.mean() == pytest.approx(2 * 0.1307 - 1, abs=2e-4)
        assert loaded.inputs.std() == pytest.approx(2 * 0.3081, abs=2e-4)
        np.testing.assert_array_equal(loaded.labels[:5], [5, 0, 4, 1, 9])
