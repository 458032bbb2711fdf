"""CIFAR-100 in its original formats, from files made here."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from supervised.data import DataError, load_cifar100
from supervised.data.cifar import by_class
from tests.errors.files import Touch
from tests.helpers import refusal

IMAGES = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), np.uint8)
FINE = np.random.default_rng(1).permutation(np.arange(200) % 100)


def binary() -> bytes:
    """As cifar.html says: coarse label, fine label, 1,024 red bytes, then green, then blue, row by row."""
    records = []
    for image, fine in zip(IMAGES, FINE, strict=True):
        red, green, blue = (bytes(image[colour].flatten()) for colour in range(3))
        records.append(bytes([fine // 5, fine]) + red + green + blue)
    return b"".join(records)


def python2() -> bytes:
    """As cPickle of Python 2 wrote it, with protocol 2: strings are bytes, the array's content is a string."""
    raw = IMAGES.tobytes()
    text = b"".join(b"U" + bytes([len(name)]) + name + b"q" + bytes([k]) for k, name in enumerate([b"x.png"]))
    ints = b"".join(b"K" + bytes([fine]) for fine in FINE.tolist())
    return (
        b"\x80\x02}q\x10(U\x09filenames](" + text + b"e"
        b"U\x0bbatch_labelU\x15training batch 1 of 1"
        b"U\x0bfine_labels](" + ints + b"e"
        b"U\x0dcoarse_labels](" + ints + b"e"
        b"U\x04data" + b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01J\xc8\x00\x00\x00M\x00\x0c\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbu."
    )


def packed(path, name: str, content: bytes) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for member, inside in ((f"{path.name.split('.')[0]}/meta", b"other"), (name, content)):
            entry = tarfile.TarInfo(member)
            entry.size = len(inside)
            tar.addfile(entry, io.BytesIO(inside))


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("where", ["folder", "below", "archive"])
def test_both_forms_packed_and_unpacked(tmp_path, form: str, where: str) -> None:
    name, content = ("test.bin", binary()) if form == "binary" else ("test", python2())
    if where == "archive":
        packed(tmp_path / f"cifar-100-{form}.tar.gz", f"cifar-100-{form}/{name}", content)
    else:
        folder = tmp_path if where == "folder" else tmp_path / f"cifar-100-{form}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    half = load_cifar100(tmp_path, "test")
    np.testing.assert_array_equal(half.images, IMAGES)
    np.testing.assert_array_equal(half.labels, FINE)
    assert half.images.dtype == half.labels.dtype == np.uint8
    with pytest.raises(DataError, match="train"):
        load_cifar100(tmp_path)


def test_the_python_form_is_what_trusting_unpickling_gives(tmp_path) -> None:
    reference = pickle.loads(python2(), encoding="latin1")
    np.testing.assert_array_equal(reference["data"].reshape(-1, 3, 32, 32), IMAGES)
    assert reference["fine_labels"] == FINE.tolist()


def test_classes_are_sorted_in_the_order_of_the_file(tmp_path) -> None:
    (tmp_path / "train.bin").write_bytes(binary())
    array = by_class(load_cifar100(tmp_path), tmp_path)
    assert array.shape == (100, 2, 3, 32, 32)
    for fine in (0, 57, 99):
        np.testing.assert_array_equal(array[fine], IMAGES[[n for n in range(200) if FINE[n] == fine]])


ROWS = IMAGES.reshape(200, -1)
BAD = {
    "truncated": ("train.bin", binary()[:-1], "no multiple of the 3,074 of a record"),
    "empty": ("train.bin", b"", "0 bytes"),
    "label": ("train.bin", bytes([0, 100]) + bytes(3072), "labels from 100 to 100, expected 0 to 99"),
    "no labels": ("train", pickle.dumps({"data": ROWS}), "no 'fine_labels' in it"),
    "no dict": ("train", pickle.dumps([1]), "holds a list, not a dict; give CIFAR-100's train and test files"),
    "shape": ("train", pickle.dumps({"data": IMAGES, "fine_labels": FINE.tolist()}), "data of shape (200, 3, 32, 32)"),
    "fewer": ("train", pickle.dumps({"data": ROWS, "fine_labels": [1]}), "fine_labels of shape (1,)"),
    "none": ("train", pickle.dumps({"data": ROWS[:0], "fine_labels": np.zeros(0, int)}), "no images"),
    "cut": ("train", python2()[:-900], "truncated"),
    "archive": ("cifar-100-binary.tar.gz", b"\x1f\x8bnonsense", "cifar-100-binary.tar.gz: "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_damaged_files_are_told_in_one_line(tmp_path, case: str) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    said = refusal(DataError, load_cifar100, tmp_path)
    assert message in said
    assert said.startswith(str(tmp_path))


def test_a_malicious_file_is_refused_without_running(tmp_path) -> None:
    (tmp_path / "train").write_bytes(pickle.dumps({"data": Touch(tmp_path)}, 2))
    with pytest.raises(DataError, match="pickle refused: asks for posix.system"):
        load_cifar100(tmp_path)
    assert not (tmp_path / "it_ran").exists()


def test_links_and_giants_in_an_archive_are_refused(tmp_path) -> None:
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("cifar-100-binary/train.bin")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(DataError, match="no regular file of at most 400,000,000 bytes"):
        load_cifar100(tmp_path)


def test_missing_files_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match="neither train.bin nor train of CIFAR-100 in it, nor an archive; put"):
        load_cifar100(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_cifar100(tmp_path / "none")
    with pytest.raises(ValueError, match="part='valid'"):
        load_cifar100(tmp_path, "valid")


def test_unequal_classes_are_told(tmp_path) -> None:
    (tmp_path / "train.bin").write_bytes(binary()[3074:])
    with pytest.raises(DataError, match=f"class {FINE[0]} has 1 images, another one 2"):
        by_class(load_cifar100(tmp_path), tmp_path)
