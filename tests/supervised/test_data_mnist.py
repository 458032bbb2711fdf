import builtins
import gzip
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets

from supervised.data.digits import load_digits
from supervised.data.errors import DataError
from supervised.data.idx import read_idx
from supervised.data.mnist import load_mnist
from tests.helpers import refusal

DASHES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
DOTS = ("train-images.idx3-ubyte", "train-labels.idx1-ubyte")


def idx(array):
    array = np.asarray(array, np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder, images, labels, names=DASHES, pack=bytes):
    for name, array in zip(names, (images, labels), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pack(idx(array)))


def made(count=5):
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, 28, 28), np.uint8), generator.integers(0, 10, count, np.uint8)


@pytest.mark.parametrize("names", [DASHES, DOTS])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw", "archive"])
def test_every_layout_of_the_mirrors_is_read(tmp_path, names, ending, folder):
    arrays = made()
    write(tmp_path / folder, *arrays, [name + ending for name in names], gzip.compress if ending else bytes)
    images, labels = load_mnist(tmp_path)
    np.testing.assert_array_equal(images, arrays[0])
    np.testing.assert_array_equal(labels, arrays[1])
    assert images.dtype == labels.dtype == np.uint8


def test_the_test_part_has_files_of_its_own(tmp_path):
    images, labels = made(3)
    write(tmp_path, images, labels, [name.replace("train", "t10k") for name in DASHES])
    assert load_mnist(tmp_path, "test").images.shape == (3, 28, 28)


GOOD = idx(made()[0])
BAD_IMAGES = {
    "magic": (b"\0\0\x0d\x03" + GOOD[4:], "bad magic number 0x00000d03, expected 0x00000803; download it again"),
    "gzipped": (gzip.compress(GOOD), "it is gzipped: give it the ending .gz"),
    "empty": (b"", "truncated: 0 bytes; download it again"),
    "header": (GOOD[:10], "truncated within its header; download it again"),
    "truncated": (GOOD[:-1], "truncated: 3,919 of 3,920 bytes after the header; download it again"),
    "longer": (GOOD + b"x", "longer than the 3,920 bytes that its header promises; download it again"),
    "shape": (idx(np.zeros((2, 8, 8))), "items of shape (8, 8), expected (28, 28); give the MNIST files themselves"),
    "none": (idx(np.zeros((0, 28, 28))), "promises 0 items, expected 1 to 1,000,000; download it again"),
    "huge": (GOOD[:4] + b"\xff" * 4 + GOOD[8:], "promises 4,294,967,295 items, expected 1 to 1,000,000"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, case):
    content, message = BAD_IMAGES[case]
    path = tmp_path / "images"
    path.write_bytes(content)
    said = refusal(DataError, read_idx, path, (28, 28))
    assert said.startswith(f"{path}: ")
    assert message in said


def test_damaged_gzip(tmp_path):
    path, packed = tmp_path / "images.gz", gzip.compress(GOOD)
    cases = {
        packed[:-20]: "truncated gzip file; download it again",
        packed[:40] + b"\xff" * 30 + packed[70:]: "corrupt gzip file (",
        packed[:-6] + b"\0" * 6: "corrupt gzip file (CRC check failed",
        GOOD: "or drop .gz if it is not compressed",
        gzip.compress(GOOD + bytes(50_000_000)): "longer than the 3,920 bytes",  # a bomb is not unpacked to its end
    }
    for content, message in cases.items():
        path.write_bytes(content)
        assert message in refusal(DataError, read_idx, path, (28, 28))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder; put the four MNIST files there"):
        load_mnist(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"no train-images-idx3-ubyte in it \(nor train-images.idx3-ubyte, .*\.gz\); put"
    ):
        load_mnist(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); check the path"):
        read_idx(tmp_path, ())


def test_labels_that_do_not_fit(tmp_path):
    images, labels = made()
    write(tmp_path, images, labels[:-1])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: 4 labels for 5 images; take .* from one mirror"):
        load_mnist(tmp_path)
    write(tmp_path, images, labels + 10)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: label 1\d, expected 0 to 9"):
        load_mnist(tmp_path)


def test_unknown_part_and_source(tmp_path):
    with pytest.raises(ValueError, match="part='valid': MNIST has 'train' and 'test'"):
        load_mnist(tmp_path, "valid")
    with pytest.raises(ValueError, match="source='web': 'files' or 'openml'"):
        load_mnist(tmp_path, source="web")


def test_openml_is_asked_by_name_and_split_as_the_files_are(tmp_path, monkeypatch):
    data = np.ones((70_000, 784))
    data[59_999, 5], data[60_000, 6] = 255, 128
    target = np.array([str(i % 10) for i in range(70_000)], dtype=object)
    asked = {}

    def fetch(name, **settings):
        asked.update(settings, name=name)
        return SimpleNamespace(data=data, target=target)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    train, test = (load_mnist(tmp_path, part, source="openml") for part in ("train", "test"))
    assert (asked["name"], asked["version"], asked["data_home"]) == ("mnist_784", 1, str(tmp_path))
    assert (train.images.shape, test.images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert (train.images[-1, 0, 5], test.images[0, 0, 6]) == (255, 128)
    assert train.images.dtype == np.uint8
    assert list(test.labels[:3]) == [0, 1, 2]


def test_openml_out_of_reach_or_of_another_shape(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", refuse)
    with pytest.raises(
        DataError, match=r"^mnist_784: OpenML did not give it \(no route\); try again, empty .*, or put"
    ):
        load_mnist(tmp_path, source="openml")
    few = SimpleNamespace(data=np.zeros((3, 784)), target=np.zeros(3))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_, **__: few)
    with pytest.raises(DataError, match=r"mnist_784: shape \(3, 784\), expected \(70000, 784\); empty scikit-learn's"):
        load_mnist(tmp_path, source="openml")


def test_digits():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert (images.dtype, labels.dtype) == (np.float32, np.uint8)
    assert (images.min(), images.max(), labels.min(), labels.max()) == (0, 1, 0, 9)
    assert images[0, 0, 2] == 5 / 16  # the first row of the first digit is 0 0 5 13 9 1 0 0


def test_without_scikit_learn_the_pip_line_is_said(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_digits()
    with pytest.raises(ImportError, match="source='openml' needs scikit-learn: pip install scikit-learn"):
        load_mnist(tmp_path, source="openml")


def test_kaggles_layout_has_each_file_in_a_folder_of_its_name(tmp_path):
    arrays = made()
    write(tmp_path, *arrays, [f"{name}/{name}" for name in DASHES])
    np.testing.assert_array_equal(load_mnist(tmp_path).images, arrays[0])


@pytest.mark.parametrize(
    "head", ["label," + ",".join(f"{row}x{column}" for row in range(28) for column in range(28)), ""]
)
def test_kaggles_tables_are_read(tmp_path, head):
    images, labels = made()
    rows = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(images, labels, strict=True)]
    (tmp_path / "mnist_train.csv").write_text("\n".join([*filter(None, [head]), *rows]) + "\n")
    found = load_mnist(tmp_path)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.images.dtype == found.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mnist_train.csv", "1,2,3\n", "1 rows of 3 numbers, expected a label and 784 pixels; download it again"),
        ("mnist_train.csv", "label,a\n1,x\n", "cannot be read"),
        ("train.csv", "label,pixel0\n1,2\n", "Kaggle's competition digit-recognizer, which has labels for 42,000"),
    ],
)
def test_tables_that_are_something_else(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_mnist(tmp_path)


def test_images_that_are_all_zero_are_told(tmp_path):
    images, labels = made()
    images[2:4] = 0
    write(tmp_path, images, labels)
    with pytest.raises(DataError, match="2 of its 5 images are all zero; download it again"):
        load_mnist(tmp_path)
