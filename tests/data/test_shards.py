"""Tar shards are exact: every image is there once, at any time, or the shard is refused."""

from __future__ import annotations

import io
import pickle  # noqa: TID251 (how things travel to loader processes)
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from pictures import encoded
from test_image_sources import labelled, opened, refused

from selfsup_cli.data import image, shards
from selfsup_cli.errors import BadMediaError

Member = tuple[str, bytes]


def shard(path: Path, members: Iterable[Member], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, count: int) -> list[Member]:
    """Images and the classes that go with them, in the manner of WebDataset."""
    found: list[Member] = []
    for number in range(first, first + count):
        found.append((f"{number:06d}.jpg", encoded("JPEG", number)))
        found.append((f"{number:06d}.cls", f"{number % 3}\n".encode()))
        found.append((f"{number:06d}.json", b"{}"))
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shard(folder / "train-000000.tar", samples(0, 4))
    shard(folder / "train-000001.tar", samples(4, 3), tarfile.GNU_FORMAT)
    shard(folder / "val-000000.tar", samples(7, 3), tarfile.USTAR_FORMAT)
    return folder


def test_images_and_classes_by_index(root: Path) -> None:
    train, test = (opened(root, part, labels=True) for part in ("train", "test"))
    assert list(train.ids)[3:5] == [
        "train-000000.tar/000003.jpg",
        "train-000001.tar/000004.jpg",
    ]
    assert [name[-10:-4] for name in train.ids] == [f"{i:06d}" for i in range(7)]
    assert test.split_rule == "the names of the shards"
    assert train.classes == test.classes == ("0", "1", "2")
    for source, first in ((train, 0), (test, 7)):
        for i in (2, 0, 1):
            assert torch.equal(source.read(i), image.decode(encoded("JPEG", first + i)))
        assert source.labels is not None
        assert source.labels.tolist() == [(first + i) % 3 for i in range(len(source))]
    assert opened(root, "train").labels is None
    there = pickle.loads(pickle.dumps(train))  # noqa: S301
    assert torch.equal(there.read(5), train.read(5))
    (root / "classes.txt").write_text("cat\ndog\neel\n")
    assert set(labelled(opened(root, "train", labels=True)).values()) == {"cat", "dog", "eel"}


def test_shards_are_looked_through_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(root)
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_members", lambda path: pytest.fail(str(path)))
        assert opened(root).fingerprint == first.fingerprint
    shard(root / "train-000001.tar", samples(4, 2))
    assert len(opened(root)) == 9


def test_one_shard_and_a_range_of_them(root: Path) -> None:
    assert len(opened(root / "train-000001.tar")) == 3
    both = opened(root / "train-{000000..000001}.tar", "test")
    assert (len(both), both.split_rule) == (1, "seeded 20 % held out (seed 0)")
    assert "there is no shard" in refused(root / "train-{000000..000009}.tar")
    assert "no range of shards" in refused(root / "train-{000009..000000}.tar")


def test_folders_within_shards_are_classes_where_nothing_else_is(tmp_path: Path) -> None:
    members = [(f"{c}/{i}.jpg", encoded("JPEG", i)) for c in ("cat", "dog") for i in range(3)]
    source = opened(shard(tmp_path / "a.tar", members), labels=True)
    assert labelled(source)["a.tar/dog/1.jpg"] == "dog"
    flat = shard(tmp_path / "b.tar", [("1.jpg", encoded())])
    assert "does not lie in a class folder" in refused(flat, labels=True)
    part = shard(tmp_path / "c.tar", [*samples(0, 3), ("9.jpg", encoded())])
    assert "'c.tar/9.jpg' has no .cls beside it" in refused(part, labels=True)


def test_a_bad_image_is_left_out_and_a_damaged_shard_refused(root: Path) -> None:
    shard(root / "train-000002.tar", [("a.jpg", b"no image"), *samples(50, 1)])
    source = opened(root)
    assert [out.id for out in source.left_out] == ["train-000002.tar/a.jpg"]
    path = root / "train-000000.tar"
    data = path.read_bytes()
    for end in (len(data) - 1, 4 * 512, 5 * 512 + 3, 100):
        path.write_bytes(data[:end].rstrip(b"\0") if end > 3000 else data[:end])
        said = refused(root)
        assert "train-000000.tar cannot be used" in said, end
    flipped = bytearray(data)
    flipped[3 * 512 + 10] ^= 0xFF
    path.write_bytes(flipped)
    path.write_text("no tar")
    assert "is no uncompressed tar file" in refused(root)
    with tarfile.open(path, "w:gz"):
        pass
    assert "is no uncompressed tar file" in refused(root)


def test_a_shard_that_changes_under_a_job(root: Path) -> None:
    source = opened(root / "train-000000.tar")
    shard(root / "train-000000.tar", samples(90, 4))
    with pytest.raises(BadMediaError, match="has changed since it was indexed"):
        source.read(0)


def test_links_and_classes_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert "hold no images" in refused(path)
    bad = shard(tmp_path / "b.tar", [("1.jpg", encoded()), ("1.cls", b"cat")])
    assert "1.cls is not the number of a class" in refused(bad)
