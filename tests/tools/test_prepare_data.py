import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supervised.data import DataError, find_source, prepare
from supervised.data.imagenet import load_imagenet
from tools.prepare_data import main

ROOT = Path(__file__).resolve().parents[2]
CLASSES, IMAGES = 12, 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """An ImageFolder of JPEGs large enough that a class takes a while."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name in range(CLASSES):
        (folder / f"n{name:04d}").mkdir()
        pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
        for index in range(IMAGES):
            picture = Image.fromarray(np.roll(pixels, index, 0)).resize((1000, 800))
            picture.save(folder / f"n{name:04d}" / f"{index}.JPEG")
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.npy"
    assert main(words(photos, path)) == 0
    return np.array(load_imagenet(path, classes=CLASSES, images=IMAGES))


def words(source, destination, *more):
    return ["imagenet", str(source), str(destination), "--classes", str(CLASSES), "--images", str(IMAGES), *more]


def test_jpegs_become_the_array(photos, undisturbed, tmp_path, capsys):
    full = np.asarray(Image.open(photos / "n0003" / "2.JPEG"), np.float64)
    boxes = full.reshape(32, 25, 1000, 3).mean(1)  # 800 rows are 32 boxes; 1000 columns are not
    edges = np.linspace(0, 1000, 33)
    column = boxes[:, 32:62].sum(1) + boxes[:, 31] * (32 - edges[1]) + boxes[:, 62] * (edges[2] - 62)
    assert np.abs(undisturbed[3, 2, :, :, 1] - column.T / (edges[2] - edges[1])).max() < 4  # whole pixels at the rims
    assert main(words(photos, tmp_path / "y.npy", "--workers", "1", "--format", "folder")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'y.npy'}: 12 classes of 5 images\n"
    np.testing.assert_array_equal(load_imagenet(tmp_path / "y.npy", classes=CLASSES, images=IMAGES), undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["y.npy"]


def test_a_killed_run_goes_on_where_it_stopped(photos, undisturbed, tmp_path, capsys):
    path, journal = tmp_path / "x.npy", tmp_path / "x.npy.journal"
    command = [sys.executable, "-m", "tools.prepare_data", *words(photos, path, "--workers", "1")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 4):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    with pytest.raises(DataError, match="not finished"):
        load_imagenet(path)
    done = journal.read_text().count("\n") - 1
    assert 3 <= done < CLASSES
    with journal.open("a") as file:
        file.write("1")  # a line cut short
    assert main(words(photos, path)) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: 12 classes of 5 images ({done} of 12 parts were there already)\n"
    assert re.search(rf"\b{done}/12", said.err)  # the bar begins where the first run was
    assert "12/12" in said.err
    np.testing.assert_array_equal(load_imagenet(path, classes=CLASSES, images=IMAGES), undisturbed)
    assert [left.name for left in tmp_path.iterdir()] == ["x.npy"]


def test_ctrl_c_says_how_to_go_on(photos, undisturbed, tmp_path, capsys, monkeypatch):
    def interrupted(left):
        yield from left[:3]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tools.prepare_data.tqdm", lambda left, **_: interrupted(left))
        assert main(words(photos, tmp_path / "x.npy")) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from here\n"
    assert main(words(photos, tmp_path / "x.npy")) == 0
    assert "(3 of 12 parts were there already)" in capsys.readouterr().out
    np.testing.assert_array_equal(load_imagenet(tmp_path / "x.npy", classes=CLASSES, images=IMAGES), undisturbed)


class Stops(Exception):
    pass


def begun(photos, destination, parts=2):
    def stopping(left):
        yield from list(left)[:parts]
        raise Stops

    with pytest.raises(Stops):
        prepare(find_source(photos, classes=CLASSES, images=IMAGES), destination, images=IMAGES, progress=stopping)


def error_of(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_another_source_or_size_does_not_go_on(photos, tmp_path, capsys):
    path = tmp_path / "x.npy"
    begun(photos, path)
    fewer = ["imagenet", str(photos), str(path), "--classes", "3", "--images", "2"]
    assert "x.npy.journal: begun with other shape and parts; give the same SRC, --classes and" in error_of(
        fewer, capsys
    )
    (tmp_path / "link").symlink_to(photos)
    other = tmp_path / "other"
    other.mkdir()
    for folder in photos.iterdir():
        (other / folder.name).symlink_to(folder)
    assert "begun with other source; give" in error_of(words(other, path, "--follow-links"), capsys)
    assert main(words(tmp_path / "link", path)) == 0  # the same folder by another name


def test_links_out_of_the_source_and_pipes_are_refused(tmp_path, capsys):
    source, secret = tmp_path / "source", tmp_path / "secret.jpg"
    (source / "n0").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(secret)
    (source / "n0/0.jpg").symlink_to("../../secret.jpg")
    asked = ["imagenet", str(source), str(tmp_path / "x.npy"), "--classes", "1", "--images", "1"]
    assert f"n0/0.jpg: a link to {secret}, out of {source}; give" in error_of(asked, capsys)
    (source / "n0/0.jpg").unlink()
    os.mkfifo(source / "n0/0.jpg")  # to open it would wait for ever
    assert "n0/0.jpg: no regular file; remove it" in error_of(asked, capsys)
    (source / "n0/0.jpg").unlink()
    np.save(tmp_path / "secret.npy", np.zeros((1, 3, 32, 32), np.uint8))
    (source / "0.npy").symlink_to(tmp_path / "secret.npy")
    assert f"0.npy: a link to {tmp_path / 'secret.npy'}, out of" in error_of(asked, capsys)
    (source / "0.npy").rename(source / "train_data_batch_1")
    assert f"a link to {tmp_path / 'secret.npy'}" in error_of([*asked, "--format", "pickle"], capsys)
    assert not (tmp_path / "x.npy").exists()


def test_a_damaged_journal(photos, tmp_path, capsys):
    begun(photos, tmp_path / "x.npy")
    (tmp_path / "x.npy.journal").write_text("nonsense\n")
    message = error_of(words(photos, tmp_path / "x.npy"), capsys)
    assert f"x.npy.journal: damaged journal; remove it and {tmp_path}/x.npy.partial to begin anew" in message


def test_a_lost_partial_array_is_begun_anew(photos, undisturbed, tmp_path):
    begun(photos, tmp_path / "x.npy")
    (tmp_path / "x.npy.partial").unlink()
    assert main(words(photos, tmp_path / "x.npy")) == 0
    np.testing.assert_array_equal(load_imagenet(tmp_path / "x.npy", classes=CLASSES, images=IMAGES), undisturbed)


def test_two_at_once(photos, tmp_path, capsys):
    path = tmp_path / "x.npy"

    def meanwhile(left):
        assert "x.npy: another process is preparing it; wait for it" in error_of(words(photos, path), capsys)
        return left

    prepare(find_source(photos, classes=CLASSES, images=IMAGES), path, images=IMAGES, progress=meanwhile)


def test_no_room(photos, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    message = error_of(words(photos, tmp_path / "x.npy"), capsys)
    assert "x.npy.partial: cannot be written (No space left on device); see that there is room" in message
    assert not (tmp_path / "x.npy.partial").exists()


def test_what_cannot_be_asked(photos, tmp_path, capsys):
    path = tmp_path / "x.npy"
    assert "not named .npy; name the array" in error_of(words(photos, tmp_path / "x"), capsys)
    assert "nowhere: no such folder; make it first" in error_of(words(photos, tmp_path / "nowhere" / "x.npy"), capsys)
    assert "nowhere: no such folder; give the folder" in error_of(words(tmp_path / "nowhere", path), capsys)
    assert "no train_data_batch_*.npz, .npy files or folders in it; see docs" in error_of(words(tmp_path, path), capsys)
    assert "classes=0: at least 1" in error_of([*words(photos, path), "--classes", "0"], capsys)
    assert "classes=1001: at most 1000" in error_of([*words(photos, path), "--classes", "1001"], capsys)
    assert "12 folders of pictures, 13 needed" in error_of([*words(photos, path), "--classes", "13"], capsys)
    path.touch()
    assert "x.npy: exists; remove it to prepare it anew" in error_of(words(photos, path), capsys)
    with pytest.raises(ValueError, match="kind='tar': one of npz, pickle, npy, folder"):
        find_source(photos, kind="tar")
    assert [left.name for left in tmp_path.iterdir()] == ["x.npy"]


def test_help_says_what_the_sources_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["imagenet", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("npz", "pickle", "npy", "folder", "goes on where it stopped"))
