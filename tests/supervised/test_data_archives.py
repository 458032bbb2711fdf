import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from supervised.data.errors import DataError
from supervised.data.npz import read_npz
from supervised.data.pickles import read_pickle
from tests.errors.files import Touch, npy
from tests.helpers import refusal

DATA = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
LABELS = [3, 1, 2]


def refused(read, path, *arguments):
    said = refusal(DataError, read, path, *arguments)
    assert said.startswith(f"{path}: ")
    return said


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "train_data_batch_1"
    batch = {"data": DATA, "labels": LABELS, "mean": DATA[0], b"big": DATA.astype(">i4"), "f": np.asfortranarray(DATA)}
    path.write_bytes(pickle.dumps(batch, protocol))
    read = read_pickle(path)
    assert read["labels"] == LABELS
    for name, expected in (("data", DATA), ("mean", DATA[0]), ("big", DATA), ("f", DATA)):
        np.testing.assert_array_equal(read[name], expected)
    assert read["data"].dtype == np.uint8


def test_a_pickle_as_python_2_wrote_it(tmp_path):
    raw = bytes(range(250, 256))
    content = (
        b"\x80\x02}(U\x04data" + b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06" + raw + b"tbU\x06labels](K\x01K\x02eu."
    )
    path = tmp_path / "batch"
    path.write_bytes(content)
    reference = pickle.loads(content, encoding="latin1")  # what trusting unpickling gives
    np.testing.assert_array_equal(read_pickle(path)["data"], reference["data"])
    np.testing.assert_array_equal(read_pickle(path)["data"], [[250, 251, 252], [253, 254, 255]])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused_without_running(tmp_path, protocol):
    evil = tmp_path / "evil"
    evil.write_bytes(pickle.dumps({"data": Touch(tmp_path)}, protocol))
    assert "system; do not use this file: a batch holds arrays and lists only" in refused(read_pickle, evil)
    assert not (tmp_path / "it_ran").exists()


def test_names_hidden_behind_admitted_ones_are_refused(tmp_path):
    path = tmp_path / "batch"
    for content, message in {
        b"cbuiltins\neval\n.": "asks for builtins.eval",
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.": "asks for numpy.dtype.__init__",
        b"cnumpy.core.multiarray\n_reconstruct\n}b.": "changes a function",
        b"cnumpy\ndtype\n(S'O'\ntR.": "array of type 'O'",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.": "encoding 'rot13'",
        b"Pid\n.": "pickle refused",
    }.items():
        path.write_bytes(content)
        assert message in refused(read_pickle, path)


def test_damaged_pickles(tmp_path):
    path, content = tmp_path / "batch", pickle.dumps({"data": DATA, "labels": LABELS})
    for length in (0, 1, 50, 200, 5_000, len(content) - 1):
        path.write_bytes(content[:length])
        assert "download it again" in refused(read_pickle, path)
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40))  # promises a terabyte
    assert "download it again" in refused(read_pickle, path)
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")  # a memo index that makes the C unpickler allocate 64 GB
    assert "holds a NoneType, not a dict" in refused(read_pickle, path)
    path.write_bytes(b"\x80\x02}(U\x04datacnumpy\nndarray\n)\x81u.")  # an array without content
    assert "damaged pickle (AttributeError); download it again" in refused(read_pickle, path)
    assert "cannot be read (No such file or directory); check" in refused(read_pickle, tmp_path / "none")


LIMITS = {"data": DATA.nbytes, "labels": 1000}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    path = tmp_path / "batch.npz"
    save(path, data=DATA, labels=np.array(LABELS), mean=DATA[0])
    read = read_npz(path, LIMITS)
    assert set(read) == {"data", "labels"}
    np.testing.assert_array_equal(read["data"], DATA)


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path):
    bomb = zipped(tmp_path / "bomb.npz", ("data.npy", npy(np.zeros((20_000, 3072), np.uint8))))
    assert bomb.stat().st_size < 100_000
    message = refused(read_npz, bomb, LIMITS)
    assert "'data' unpacks to 61,440,128 bytes, at most 9,216 expected; do not use this file: it is no batch" in message
    header = npy(np.zeros((2, 3072), np.uint8)).replace(b"(2, 3072)", b"(9**9, 9)")
    for content in (npy(DATA)[:-1], npy(DATA) + b"x", npy(DATA).replace(b"(3, ", b"(9, ")):
        assert "has another size than its shape" in refused(read_npz, zipped(bomb, ("data.npy", content)), LIMITS)
    for content in (header, b"", b"x" * 200, npy(DATA).replace(b"(3,", b"(-3")):
        assert "download it again" in refused(read_npz, zipped(bomb, ("data.npy", content)), LIMITS)
    assert "shape (-3, 3072) in" in refused(
        read_npz, zipped(bomb, ("data.npy", npy(DATA).replace(b"(3, 3072), ", b"(-3, 3072),"))), LIMITS
    )


def test_a_zip_that_lies_about_its_sizes_is_read_no_further_than_it_says(tmp_path):
    small, large = npy(np.zeros((3, 3072), np.uint8)), npy(np.zeros((20_000, 3072), np.uint8))
    path = zipped(tmp_path / "bomb.npz", ("data.npy", large.replace(b"(20000, 3072), ", b"(3, 3072),     ")))
    content = path.read_bytes()
    sizes = struct.pack("<I", len(large)), struct.pack("<I", len(small))
    assert content.count(sizes[0]) == 2  # beside the member and in the directory
    path.write_bytes(content.replace(*sizes))
    tracemalloc.start()
    assert "Bad CRC-32" in refused(read_npz, path, LIMITS)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # of 61 MB
    tracemalloc.stop()


def test_a_pickle_that_unpacks_the_same_text_again_and_again_is_refused(tmp_path):
    path = tmp_path / "batch"
    text = b"c_codecs\nencode\nq\x00X" + struct.pack("<I", 100_000) + b"x" * 100_000 + b"q\x010"
    again = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R0"
    path.write_bytes(b"\x80\x02" + text + again * 1_000 + b"}.")
    tracemalloc.start()
    assert "unpacks to more than the file holds; do not use this file" in refused(read_pickle, path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # of 100 MB
    tracemalloc.stop()


def test_objects_in_an_npz_are_refused_without_running(tmp_path):
    objects = np.array([Touch(tmp_path)], dtype=object)
    path = zipped(tmp_path / "batch.npz", ("data.npy", npy(objects)))
    assert "holds Python objects (a pickle); do not use this file" in refused(read_npz, path, LIMITS)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("name", ["../data.npy", "/tmp/data.npy", "a\\data.npy", ".data.npy"])
def test_an_archive_with_paths_in_it_is_refused(tmp_path, name):
    path = zipped(tmp_path / "batch.npz", (name, npy(DATA)))
    assert "a path; do not use this file" in refused(read_npz, path, LIMITS)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_npz(tmp_path):
    path = tmp_path / "batch.npz"
    np.savez(path, data=DATA, labels=LABELS)
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content.replace(DATA.tobytes()[:9], b"\0" * 9)):
        path.write_bytes(damaged)
        assert "damaged or truncated .npz (" in refused(read_npz, path, LIMITS)
    zipped(path, ("data.npy", npy(DATA)), ("data.npy", npy(DATA)))
    assert "two members have the same name; do not use this file" in refused(read_npz, path, LIMITS)
    zipped(path, ("mean.npy", npy(DATA)))
    assert "no array 'data' in it, only ['mean.npy']; give the train_data_batch_*" in refused(read_npz, path, LIMITS)
    assert "cannot be read (No such file or directory)" in refused(read_npz, tmp_path / "none.npz", LIMITS)
