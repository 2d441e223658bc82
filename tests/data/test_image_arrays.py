"""Images in arrays: every usual form of them, and none that is not what it seems."""

from __future__ import annotations

import pickle  # noqa: TID251 (how things travel to loader processes)
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from test_image_sources import labelled, opened, refused

from selfsup_cli.data.pixels import FlatPixels, LoadedPixels
from selfsup_cli.errors import MachineError


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


X, Y = images(6, 5, 7, 3), images(3, 5, 7, 3, seed=1)
PARTS: dict[str, Any] = {
    "x_train": X,
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": Y,
    "y_test": np.array([[2], [0], [1]], np.uint8),
    "class_names": np.array(["cat", "dog", "eel"]),
}


def written(path: Path, form: str = "stored", **arrays: Any) -> Path:
    """Arrays in a file: an `.npz` (stored, deflated), or HDF5 (contiguous, chunked)."""
    if path.suffix == ".npz":
        (np.savez if form == "stored" else np.savez_compressed)(path, **arrays)
        return path
    how = {} if form == "contiguous" else {"chunks": True, "compression": "gzip"}
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values.dtype.kind == "U":
                file[name] = values.astype(object)
            else:
                file.create_dataset(name, data=values, **how)
    return path


FORMS = [("npz", "stored"), ("npz", "deflated"), ("h5", "contiguous"), ("h5", "chunked")]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_every_form_gives_the_same_images(tmp_path: Path, kind: str, form: str) -> None:
    path = written(tmp_path / f"a.{kind}", form, **PARTS)
    train, test = (opened(path, part, labels=True) for part in ("train", "test"))
    assert list(train.ids) == [f"train/{i:06d}" for i in range(6)]
    assert list(labelled(train).values()) == ["cat", "dog", "eel"] * 2
    assert list(labelled(test).values()) == ["eel", "cat", "dog"]
    assert test.split_rule == "arrays x_train and x_test"
    for source, values in ((train, X), (test, Y)):
        for i, value in enumerate(values):
            assert np.array_equal(source.read(i).permute(1, 2, 0).numpy(), value)
        assert source.sizes.tolist() == [[5, 7]] * len(values)
        assert source.read(0, (10, 4)).shape == (3, 10, 4)
    assert [*train.ids, *test.ids] == list(opened(path).ids)
    there = pickle.loads(pickle.dumps(train))  # noqa: S301
    assert torch.equal(there.read(3), train.read(3))


def test_every_form_has_the_same_fingerprint(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{form}.{kind}", form, **PARTS) for kind, form in FORMS]
    assert len({opened(path, "train", labels=True).fingerprint for path in files}) == 1
    other = written(tmp_path / "other.npz", **{**PARTS, "x_train": images(6, 5, 7, 3, seed=9)})
    prints = {opened(path, "train").fingerprint for path in (files[0], other)}
    assert len(prints) == 2
    assert opened(files[0], "test").fingerprint == opened(other, "test").fingerprint


def test_what_lies_flat_is_read_from_the_disk(tmp_path: Path) -> None:
    kinds = {
        "stored": FlatPixels,
        "deflated": LoadedPixels,
        "contiguous": FlatPixels,
        "chunked": LoadedPixels,
    }
    for (suffix, form), expected in zip(FORMS, kinds.values(), strict=True):
        path = written(tmp_path / f"{form}.{suffix}", form, **PARTS)
        store: Any = opened(path).store  # type: ignore[attr-defined]
        assert {type(array) for array in store._arrays} == {expected}


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        (images(3, 4, 6), lambda x: np.repeat(x[..., None], 3, 3)),
        (images(3, 4, 6, 1), lambda x: np.repeat(x, 3, 3)),
        (images(3, 3, 4, 6), lambda x: x.transpose(0, 2, 3, 1)),
        (np.asfortranarray(images(3, 4, 6, 3)), lambda x: x),
    ],
)
def test_the_order_of_axes(tmp_path: Path, values: np.ndarray, seen: Any) -> None:
    source = opened(written(tmp_path / "a.npz", x=values))
    found = np.stack([source.read(i).permute(1, 2, 0).numpy() for i in range(3)])
    assert np.array_equal(found, seen(values))
    assert source.sizes.tolist() == [[4, 6]] * 3


def test_an_undivided_array_is_divided_by_the_hash(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", x=images(20, 4, 4, 3), y=np.arange(20) % 2)
    train, test = (opened(path, part, labels=True) for part in ("train", "test"))
    assert (len(train), len(test)) == (16, 4)
    assert sorted([*train.ids, *test.ids]) == [f"{i:06d}" for i in range(20)]
    assert labelled(test) == {name: str(int(name) % 2) for name in test.ids}
    whole = opened(path)
    for i, name in enumerate(test.ids):
        assert torch.equal(test.read(i), whole.read(int(name)))


def test_labels_of_several_kinds(tmp_path: Path) -> None:
    def of(y: Any, **more: Any) -> Any:
        return opened(written(tmp_path / "a.npz", x=images(3, 4, 4, 3), y=y, **more), labels=True)

    assert labelled(of(np.array(["b", "a", "b"]))) == {"000000": "b", "000001": "a", "000002": "b"}
    assert list(labelled(of(np.eye(3, dtype=int))).values()) == ["0", "1", "2"]
    several = of(np.array([[1, 0], [1, 1], [-1, 255]]), attribute_names=np.array(["hat", "hair"]))
    assert several.attributes == ("hat", "hair")
    assert several.labels.tolist() == [[1, 0], [1, 1], [0, 255]]
    assert several.labels.dtype == np.uint8


def test_mistakes_about_labels(tmp_path: Path) -> None:
    def said(y: Any, **more: Any) -> str:
        arrays = {"x": images(3, 4, 4, 3), **({} if y is None else {"y": y}), **more}
        return refused(written(tmp_path / "a.npz", **arrays), labels=True)

    assert "there is no y beside x" in said(None)
    assert "all its images have one label" in said(np.zeros(3, int))
    assert "y is [2] for 3 images" in said(np.arange(2))
    assert "neither whole numbers nor words" in said(np.array([0.0, 1.0, 2.0]))
    assert "go from -1 to 1" in said(np.array([-1, 0, 1]))
    assert "go from 0 to 2, but 2 classes are named" in said(np.arange(3), class_names=["a", "b"])
    assert "neither one number an image nor 0 and 1" in said(np.array([[0, 3], [1, 1], [1, 0]]))
    only = written(
        tmp_path / "b.npz", x_train=X, y_train=np.arange(6) % 2, x_test=Y, y_test=np.arange(3)
    )
    assert "testing alone has '2'" in refused(only, labels=True)


def test_mistakes_about_images(tmp_path: Path, data_dir: Path) -> None:
    def said(**arrays: Any) -> str:
        return refused(written(tmp_path / "a.npz", **arrays))

    assert "it has no x_train or x" in said(pictures=X)
    assert "x is float64, and images must be uint8" in said(x=X / 255)
    assert "x is [6, 105], and images must be" in said(x=X.reshape(6, -1))
    assert "is [0, 4, 4, 3]" in said(x=images(0, 4, 4, 3))
    assert "has no images of the part test" in refused(
        written(tmp_path / "b.npz", x_train=X), "test"
    )
    assert "cannot be used" in refused(data_dir / "broken" / "truncated.npz")
    assert "cannot be used" in refused(data_dir / "broken" / "truncated.h5")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    objects = np.array([Deadly(), 1], object)
    np.savez(tmp_path / "a.npz", x=objects)
    assert "Python objects, which are not unpickled" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=X, y=objects)
    assert "Python objects" in refused(tmp_path / "b.npz", labels=True)


def test_hdf5_that_leads_elsewhere(tmp_path: Path) -> None:
    written(tmp_path / "real.h5", "contiguous", x=X)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("real.h5", "x")
    assert "x is a link" in refused(tmp_path / "a.h5")
    (tmp_path / "raw").write_bytes(bytes(4 * 4 * 4 * 3))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        outside = [(str(tmp_path / "raw"), 0, 192)]
        file.create_dataset("x", (4, 4, 4, 3), "u1", external=outside)
    assert "keeps its data elsewhere" in refused(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", (10_000, 512, 512, 3), "u1", chunks=(1, 512, 512, 3))
    assert "claims more data than the file can hold" in refused(tmp_path / "c.h5")


def test_an_npz_that_lies_about_its_length(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    lie = (tmp_path / "x.npy").read_bytes().replace(b"(6, 5, 7, 3)", b"(9, 5, 7, 3)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", lie)
    assert "not as long as it says" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize("form", ["stored", "deflated"])
def test_an_npz_that_does_not_match_its_checksum(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / "a.npz", form, x=X)
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[0].header_offset + 300
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    assert "cannot be used" in refused(path)


def test_arrays_beyond_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.npz", "deflated", x=X)
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(MachineError, match="of memory"):
        opened(path)


def test_cifar_as_it_is_carried_along(data_dir: Path) -> None:
    for name, counts in (("cifar10.npz", (10_000, 2_000)), ("cifar10_lossless.h5", (5_170, 1_017))):
        parts = [opened(data_dir / name, part, labels=True) for part in ("train", "test")]
        assert tuple(map(len, parts)) == counts
        assert parts[0].classes == parts[1].classes
        assert parts[0].classes is not None
        assert parts[0].classes[0] == "airplane"
    with np.load(data_dir / "cifar10.npz", allow_pickle=False) as arrays:
        test = opened(data_dir / "cifar10.npz", "test", labels=True)
        assert np.array_equal(test.labels, arrays["y_test"])
        assert np.array_equal(test.read(77).permute(1, 2, 0).numpy(), arrays["x_test"][77])
