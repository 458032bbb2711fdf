import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from supervised.data import folders
from supervised.data.errors import DataError
from supervised.data.folders import downsampled
from supervised.data.imagenet import load_imagenet
from supervised.data.prepare import find_source, prepare
from tests.helpers import refusal

CLASSES, IMAGES = 3, 4


def rows(per_class, generator):
    """Batches as the official ones: `data` [n, 3072] and labels from 1, mixed."""
    labels = generator.permutation(np.repeat(np.arange(1, CLASSES + 1), per_class))
    return generator.integers(0, 256, (len(labels), 3072), np.uint8), labels


def batches(folder, kind="npz", numbers=(1, 2, 10), per_class=2):
    """Three batches in real formats; returns what the array must be, found one image at a time."""
    generator, found = np.random.default_rng(0), {label: [] for label in range(1, CLASSES + 1)}
    for number in numbers:
        data, labels = rows(per_class, generator)
        if kind == "npz":
            np.savez(folder / f"train_data_batch_{number}.npz", data=data, labels=labels, mean=data[0])
        else:
            batch = {"data": data, "labels": labels.tolist(), "mean": data[0]}
            (folder / f"train_data_batch_{number}").write_bytes(pickle.dumps(batch))
        for row, label in zip(data, labels, strict=True):
            found[int(label)].append(np.stack([row[:1024], row[1024:2048], row[2048:]]).reshape(3, 32, 32))
    return np.stack([np.stack(found[label][:IMAGES]) for label in found])


def found(folder, **settings):
    return find_source(folder, **{"classes": CLASSES, "images": IMAGES, **settings})


def made(source, destination):
    prepare(source, destination, images=IMAGES)
    return load_imagenet(destination, classes=CLASSES, images=IMAGES)


@pytest.mark.parametrize("kind", ["npz", "pickle"])
def test_official_batches(tmp_path, kind):
    expected = batches(tmp_path, kind, numbers=(1, 2, 3))
    array = made(found(tmp_path, kind="pickle" if kind == "pickle" else None), tmp_path / "imagenet32.npy")
    np.testing.assert_array_equal(array, expected)
    assert isinstance(array, np.memmap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.from_numpy(array)[1, 2].shape == (3, 32, 32)
    assert load_imagenet(tmp_path, classes=2, images=1).shape == (2, 1, 3, 32, 32)  # by its folder, and a part of it


def test_pickles_are_not_read_unasked(tmp_path):
    batches(tmp_path, "pickle", numbers=(1, 2))
    assert "pickled batches, which are not read unasked; add --format pickle if" in refusal(DataError, found, tmp_path)


def test_incomplete_batches(tmp_path):
    with pytest.raises(DataError, match="no train_data_batch_1.npz in it; put all ten train_data_batch"):
        find_source(tmp_path, kind="npz")
    batches(tmp_path, numbers=(1, 3))
    with pytest.raises(DataError, match="train_data_batch_2 is missing; put all ten"):
        find_source(tmp_path)
    (tmp_path / "train_data_batch_3.npz").rename(tmp_path / "train_data_batch_2.npz")
    with pytest.raises(DataError, match=r"class 1 has 4 images, 5 needed \(3 such classes\); put all ten"):
        found(tmp_path, images=5)
    with pytest.raises(DataError, match=r"class 4 has 0 images, 4 needed \(1 such classes\); put all ten"):
        found(tmp_path, classes=CLASSES + 1)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [0, 1]}, "labels from 0 to 1, expected 1 to 1000"),
        ({"labels": [1, 1001]}, "labels from 1 to 1001, expected 1 to 1000"),
        ({"labels": [1.0, 2.0]}, "labels of shape (2,), type float64; expected whole numbers, one per image"),
        ({"labels": [[1, 2]]}, "labels of shape (1, 2), type int64; expected whole numbers"),
        ({"labels": []}, "labels of shape (0,)"),
        ({}, "no 'labels' in it, only []; give the train_data_batch_* files"),
    ],
)
def test_wrong_labels(tmp_path, batch, message):
    (tmp_path / "train_data_batch_1").write_bytes(pickle.dumps(batch))
    assert message in refusal(DataError, find_source, tmp_path, kind="pickle", classes=1, images=1)


def test_wrong_data_is_found_where_it_lies_and_the_rest_is_kept(tmp_path):
    expected = batches(tmp_path, numbers=(1, 2))
    wrong, good = tmp_path / "train_data_batch_2.npz", (tmp_path / "train_data_batch_2.npz").read_bytes()
    labels = np.load(wrong)["labels"]
    source = found(tmp_path)
    for data in (np.zeros((6, 12288), np.uint8), np.zeros((5, 3072), np.uint8), np.zeros((6, 3072), np.float32)):
        np.savez(wrong, data=data, labels=labels)
        with pytest.raises(
            DataError, match=r"batch_2.npz: data of shape .*; expected \(6, 3072\), uint8; give the archives"
        ):
            made(source, tmp_path / "x.npy")
    wrong.write_bytes(good)
    assert prepare(source, tmp_path / "x.npy", images=IMAGES) == 1
    np.testing.assert_array_equal(load_imagenet(tmp_path / "x.npy", classes=CLASSES, images=IMAGES), expected)


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_of_arrays(tmp_path, flat):
    expected = np.random.default_rng(1).integers(0, 256, (CLASSES, 6, 3, 32, 32), np.uint8)
    for name, images in zip((2, 10, 11), expected, strict=True):  # by number: 2 comes before 10
        np.save(tmp_path / f"{name}.npy", images.reshape(6, 3072) if flat else images)
    (tmp_path / "out").mkdir()
    source = found(tmp_path)
    assert list(source.names) == ["2", "10", "11"]
    np.testing.assert_array_equal(made(source, tmp_path / "out" / "x.npy"), expected[:, :IMAGES])


def test_wrong_arrays(tmp_path):
    path = tmp_path / "0.npy"

    def message():
        return refusal(DataError, find_source, tmp_path, kind="npy", classes=1, images=2)

    assert "0 .npy files, 1 needed; add the missing classes" in message()
    for array in (np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 3, 32, 32)), np.zeros(3, np.uint8)):
        np.save(path, array)
        assert f"{path}: shape {array.shape}, type {array.dtype}; expected [images, 3, 32, 32]" in message()
    np.save(path, np.zeros((1, 3, 32, 32), np.uint8))
    assert "1 images, 2 needed; add images, or ask for fewer" in message()
    np.save(path, np.zeros((2, 3, 32, 32), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated: 6,271 of 6,272 bytes; copy it again" in message()
    path.write_bytes(b"nothing")
    assert "no .npy header, or a damaged one" in message()
    np.save(path, np.array([{}]), allow_pickle=True)
    assert "holds Python objects (a pickle)" in message()


def pictures(folder, classes=CLASSES, images=IMAGES, size=(320, 256), ending="JPEG"):
    generator = np.random.default_rng(2)
    for name in range(classes):
        (folder / f"n{name:08d}").mkdir(parents=True)
        for index in range(images):
            pixels = generator.integers(0, 256, (size[1] // 32, size[0] // 32, 3), np.uint8)
            picture = Image.fromarray(pixels).resize(size)
            picture.save(folder / f"n{name:08d}" / f"{index}.{ending}")


def test_pictures_are_averaged_over_boxes(tmp_path):
    pictures(tmp_path, ending="PNG")
    for workers in (1, 3):
        (tmp_path / f"out{workers}").mkdir()
        array = made(found(tmp_path, workers=workers), tmp_path / f"out{workers}" / "x.npy")
        for name, index in ((0, 0), (2, 3)):
            full = np.asarray(Image.open(tmp_path / f"n{name:08d}" / f"{index}.PNG"), np.float64)
            boxes = full.reshape(32, 8, 32, 10, 3).mean((1, 3)).transpose(2, 0, 1)  # 256 x 320 is 32 x 32 boxes
            assert np.abs(array[name, index] - boxes).max() <= 1  # Pillow rounds after each of its two passes


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_mode_become_colours(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (40, 30), (200, 200, 200)).convert(mode).save(path)
    assert downsampled(path).shape == (3, 32, 32)


def png_of_size(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


def test_damaged_pictures_and_missing_ones(tmp_path, monkeypatch):
    pictures(tmp_path, classes=1, images=1)
    path = tmp_path / "n00000000" / "0.JPEG"

    def message():
        said = refusal(DataError, downsampled, path)
        assert said.startswith(f"{path}: ")
        return said

    path.write_bytes(path.read_bytes()[:-500])
    assert "not a readable picture (image file is truncated" in message()
    path.write_bytes(b"text")
    assert "not a readable picture (cannot identify image file '0.JPEG'); download it again or remove it" in message()
    path.write_bytes(png_of_size(100_000, 100_000))
    assert "not a readable picture (Image size (10000000000 pixels) exceeds limit" in message()
    monkeypatch.setattr(folders, "MOST_PIXELS", 1000)
    path.write_bytes(png_of_size(40, 30))
    assert "40 x 30 pixels, at most 1,000 expected; remove it" in message()
    with pytest.raises(DataError, match="1 folders of pictures, 2 needed; add the missing classes"):
        find_source(tmp_path, classes=2, images=1)
    with pytest.raises(DataError, match="n00000000: 1 pictures, 2 needed; add pictures, or ask for fewer"):
        find_source(tmp_path, classes=1, images=2)
    monkeypatch.setattr(folders, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pictures are read with Pillow: pip install pillow"):
        find_source(tmp_path, classes=1, images=1)


def test_the_prepared_array_is_checked(tmp_path):
    path = tmp_path / "imagenet32.npy"

    def message(**sizes):
        said = refusal(DataError, load_imagenet, tmp_path, **sizes)
        assert said.startswith(f"{path}: ")
        assert "python -m tools.prepare_data imagenet SRC" in said
        return said

    assert f"no such file; make it with python -m tools.prepare_data imagenet SRC {path}" in message()
    (tmp_path / "train_data_batch_1.npz").touch()
    assert "but the batches that it is made from are there" in message()
    (tmp_path / "imagenet32.npy.partial").touch()
    assert "not finished (run the same command again and it goes on)" in message()
    np.save(path, np.zeros((3, 4, 3, 32, 32), np.uint8))
    assert "3 classes of 4 images, 1000 of 700 needed; prepare it whole" in message()
    assert "3 classes of 4 images, 3 of 5 needed" in message(classes=3, images=5)
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated: 36,991 of 36,992 bytes" in message(classes=3, images=4)
    np.save(path, np.zeros((3, 4, 32, 32, 3), np.uint8))
    assert "shape (3, 4, 32, 32, 3), type uint8; expected [classes, images, 3, 32, 32], uint8" in message()


def test_what_is_mapped_can_be_changed_but_the_file_is_not(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1, 1, 3, 32, 32), np.uint8))
    load_imagenet(path, classes=1, images=1)[:] = 7
    assert load_imagenet(path, classes=1, images=1).max() == 0


def test_what_lies_one_folder_deeper_is_found(tmp_path):
    pictures(tmp_path / "CLS-LOC" / "train")
    (tmp_path / "CLS-LOC" / "val").mkdir()  # its pictures are in no folders of classes
    Image.new("RGB", (40, 40)).save(tmp_path / "CLS-LOC" / "val" / "0.JPEG")
    source = found(tmp_path / "CLS-LOC")
    assert source.root == tmp_path / "CLS-LOC" / "train"
    assert list(source.names) == ["n00000000", "n00000001", "n00000002"]
    (tmp_path / "deep" / "npz").mkdir(parents=True)
    expected = batches(tmp_path / "deep" / "npz", numbers=(1, 2, 3))
    np.testing.assert_array_equal(made(found(tmp_path / "deep"), tmp_path / "x.npy"), expected)


def test_several_folders_that_could_be_meant_are_named(tmp_path):
    for name in ("train", "val"):
        pictures(tmp_path / name)
    with pytest.raises(DataError, match=r"several sources lie in it: train, val; give one of them, as .*/train"):
        found(tmp_path)


def test_blank_images_are_told_and_a_blank_class_is_refused(tmp_path):
    (tmp_path / "arrays").mkdir()
    arrays = np.ones((CLASSES, IMAGES, 3, 32, 32), np.uint8)
    arrays[1, :2] = 0
    for name, images in enumerate(arrays):
        np.save(tmp_path / "arrays" / f"{name}.npy", images)
    with pytest.warns(UserWarning, match="images that are all zero: 2 of 1$"):
        made(found(tmp_path / "arrays"), tmp_path / "x.npy")
    np.save(tmp_path / "arrays" / "1.npy", arrays[1] * 0)
    with pytest.raises(DataError, match="all images of class 1 are zero; fetch it again, then remove"):
        made(found(tmp_path / "arrays"), tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()
