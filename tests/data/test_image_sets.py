"""Registered datasets: what torchvision's own readers give, from files as they are handed out."""

from __future__ import annotations

import pickle  # noqa: TID251 (torchvision's readers unpickle; ours are compared with them)
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, put
from test_image_sources import labelled, opened, refused

from selfsup_cli.data import pickled

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision compares files with the MD5 of the real ones."""
    for module in ("cifar", "stl10", "celeba", "places365"):
        name = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(name, lambda path, md5=None: Path(path).is_file())


def same(ours: Any, theirs: Any, labels: bool = True) -> None:
    """Both have the same images and labels in the same order."""
    assert len(ours) == len(theirs) > 0
    for i, (image, label) in enumerate(theirs[i] for i in range(len(theirs))):
        assert np.array_equal(ours.read(i).permute(1, 2, 0).numpy(), np.asarray(image))
        if labels:
            assert np.array_equal(ours.labels[i], label)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# -- CIFAR


def python2(value: Any) -> bytes:
    """`value` as Python 2 pickled it: bytes are its strings."""
    data = bytearray(pickle.dumps(value, protocol=3))
    old = {"BINBYTES": b"T", "SHORT_BINBYTES": b"U", "PROTO": None}
    for operation, _, at in list(pickletools.genops(bytes(data))):
        assert at is not None
        if operation.name == "PROTO":
            data[at + 1] = 2
        elif operation.name in old:
            data[at : at + 1] = old[operation.name] or b""
    return bytes(data)


def cifar10_batches() -> dict[str, dict[bytes, Any]]:
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    return {
        name: {
            b"batch_label": b"a batch",
            b"labels": [(7 * n + i) % 10 for i in range(12)],
            b"data": noise(n, 12, 3072),
            b"filenames": [f"{n}_{i}.png".encode() for i in range(12)],
        }
        for n, name in enumerate(names)
    }


LABELS = [*"abcdefghij"]


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, batch in cifar10_batches().items():
        (folder / name).write_bytes(python2(batch))
    meta = {b"label_names": [name.encode() for name in LABELS], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2(meta))
    return folder.parent


def test_cifar10_is_what_torchvision_reads(cifar10: Path) -> None:
    from torchvision.datasets import CIFAR10

    for part in ("train", "test"):
        theirs = CIFAR10(str(cifar10), train=part == "train")
        ours = opened("cifar10", part, labels=True, root=str(cifar10))
        same(ours, theirs)
        assert ours.classes == tuple(theirs.classes)
        assert (ours.name, ours.split_rule) == ("cifar10", "official train and test")
    assert opened("cifar10", "train", root=str(cifar10)).labels is None
    # The same folder by its path, or that of the batches.
    assert len(opened(cifar10, "all")) == len(opened(cifar10 / "cifar-10-batches-py", "all")) == 72


def test_the_binary_version_has_the_same_images(cifar10: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, batch in cifar10_batches().items():
        rows = np.hstack([np.array(batch[b"labels"], np.uint8)[:, None], batch[b"data"]])
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(LABELS) + "\n\n")
    for part in ("train", "test"):
        ours = opened("cifar10", part, labels=True, root=str(folder.parent))
        other = opened("cifar10", part, labels=True, root=str(cifar10))
        assert ours.fingerprint == other.fingerprint
        assert torch.equal(ours.read(5), other.read(5))
    (folder / "test_batch.bin").write_bytes(bytes(3073 * 2 - 1))
    assert "no multiple of 3073: it is truncated" in refused("cifar10", root=str(folder.parent))


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for n, name in enumerate(("train", "test")):
        batch = {
            b"data": noise(n, 20, 3072),
            b"fine_labels": list(range(20)),
            b"coarse_labels": [0] * 20,
        }
        (folder / name).write_bytes(python2(batch))
    meta = {b"fine_label_names": [f"c{i}".encode() for i in range(20)]}
    (folder / "meta").write_bytes(python2(meta))
    ours = opened("cifar100", "test", labels=True, root=str(tmp_path))
    same(ours, CIFAR100(str(tmp_path), train=False))
    assert ours.classes == tuple(f"c{i}" for i in range(20))


def test_class_folders_of_cifar(data_dir: Path) -> None:
    source = opened("cifar10", "test", labels=True, root=str(data_dir / "cifar10-folder"))
    assert (len(source), source.name) == (200, "cifar10")


def test_a_pickle_that_calls_something_is_refused(cifar10: Path) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    path = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    for bad in ({b"data": Deadly(), b"labels": []}, Deadly(), [1]):
        path.write_bytes(pickle.dumps(bad, protocol=2))
        assert "data_batch_3 cannot be used: it is no pickle of CIFAR" in refused(
            "cifar10", root=str(cifar10)
        )
    path.write_bytes(python2({b"data": noise(0, 2, 3072), b"labels": [1]}))
    assert "does not hold data and labels" in refused("cifar10", root=str(cifar10))


@pytest.mark.parametrize("protocol", range(5))
def test_plain_pickles_of_every_protocol(protocol: int) -> None:
    value = {
        b"data": noise(0, 5, 7),
        "labels": [1, 2, 300, 70_000, 2**40],
        "names": ("a", "ä", b"\xff\0", "", None, True, 1.5),
        "nested": {"list": [[], {}, ()]},
    }
    found = pickled.read(pickle.dumps(value, protocol=protocol))
    assert np.array_equal(found.pop(b"data"), value.pop(b"data"))
    assert found == value


@pytest.mark.parametrize(
    "make",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"numpy", b"posix"),
        lambda data: data.replace(b"_reconstruct", b"_reconstruc2"),
    ],
)
def test_damaged_pickles_are_refused(make: Callable[[bytes], bytes]) -> None:
    data = python2({b"data": noise(0, 5, 7), b"labels": [1]})
    with pytest.raises(ValueError, match=r"."):
        pickled.read(make(data))


# -- STL-10


@pytest.fixture
def stl10(tmp_path: Path) -> Path:
    folder = tmp_path / "stl" / "stl10_binary"
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", 20), ("test", 6), ("unlabeled", 8))):
        (folder / f"{part}_X.bin").write_bytes(noise(seed, count, 3, 96, 96).tobytes())
        if part != "unlabeled":
            marks = (np.arange(count) * 3 % 10 + 1).astype(np.uint8)
            (folder / f"{part}_y.bin").write_bytes(marks.tobytes())
    folds = [" ".join(str((7 * fold + 3 * i) % 20) for i in range(4)) + " " for fold in range(10)]
    (folder / "fold_indices.txt").write_text("\n".join(folds) + "\n")
    (folder / "class_names.txt").write_text("\n".join(LABELS) + "\n")
    return folder.parent


def test_stl10_is_what_torchvision_reads(stl10: Path) -> None:
    from torchvision.datasets import STL10

    root = str(stl10)
    for part in ("train", "test"):
        ours = opened("stl10", part, labels=True, root=root)
        same(ours, STL10(root, part))
        assert ours.classes == tuple(LABELS)
    for fold in (1, 4, 10):
        ours = opened("stl10", "train", labels=True, root=root, split=fold)
        same(ours, STL10(root, "train", folds=fold - 1))
        assert ours.split_rule == f"official fold {fold}"
    unlabelled = opened("stl10", "train", root=root)
    same(unlabelled, STL10(root, "unlabeled"), labels=False)
    assert unlabelled.labels is None
    both = opened("stl10", "train", root=root, part="train+unlabeled")
    same(both, STL10(root, "train+unlabeled"), labels=False)
    assert len(opened("stl10", "train", root=root, part="train")) == 20


def test_mistakes_about_stl10(stl10: Path) -> None:
    root = str(stl10)
    assert "fold 11 does not exist" in refused("stl10", "train", True, root=root, split=11)
    assert "the unlabelled part of stl10 has no labels" in refused(
        "stl10", "train", True, root=root, part="unlabeled"
    )
    (stl10 / "stl10_binary" / "fold_indices.txt").write_text("1 2 99\n")
    assert "fold_indices.txt:1: it names images that are not there" in refused(
        "stl10", "train", True, root=root, split=1
    )
    (stl10 / "stl10_binary" / "test_y.bin").write_bytes(b"\1\2")
    assert "test_y.bin does not fit test_X.bin" in refused("stl10", "test", True, root=root)


# -- files


def test_imagenet_takes_train_and_val_alone(tmp_path: Path) -> None:
    names = [f"{part}/n0000000{n}/{part}_{n}.JPEG" for part in ("train", "val") for n in (1, 2)]
    put(tmp_path, *names, "test/hidden_1.JPEG", "devkit/picture.png")
    for source in ("imagenet", tmp_path):
        how = {"root": str(tmp_path)} if source == "imagenet" else {}
        test = opened(source, "test", labels=True, **how)
        assert list(test.ids) == names[2:]
        assert test.classes == ("n00000001", "n00000002")
        assert len(opened(source, "all", **how)) == 4
    put(tmp_path / "flat", "train/n00000001/1.JPEG", "val/1.JPEG")
    assert "do not lie in folders of their class" in refused(
        "imagenet", labels=True, root=str(tmp_path / "flat")
    )


def test_places365_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import Places365

    (tmp_path / "categories_places365.txt").write_text("/a/attic 0\n/b/bar/indoor 1\n/c/cave 2\n")
    train = ["/a/attic/1.jpg 0", "/b/bar/indoor/1.jpg 1", "/c/cave/1.jpg 2", "/a/attic/2.jpg 0"]
    (tmp_path / "places365_train_standard.txt").write_text("\n".join(train) + "\n")
    (tmp_path / "places365_val.txt").write_text("v1.jpg 2\nv2.jpg 1\n")
    put(tmp_path / "data_256_standard", *(line.split()[0][1:] for line in train))
    put(tmp_path / "val_256", "v1.jpg", "v2.jpg")
    for ours, theirs in (("train", "train-standard"), ("test", "val")):
        source = opened("places", ours, labels=True, root=str(tmp_path))
        same(source, Places365(str(tmp_path), theirs, small=True))
        assert source.classes == ("attic", "bar/indoor", "cave")
    (tmp_path / "places365_val.txt").write_text("v1.jpg 7\n")
    assert "name class 7, but there are 3 classes" in refused(
        "places", "test", True, root=str(tmp_path)
    )


def test_places205_and_class_folders(tmp_path: Path) -> None:
    older = tmp_path / "older"
    lists = older / "trainvalsplit_places205"
    lists.mkdir(parents=True)
    (lists / "train_places205.csv").write_text("a/abbey/1.jpg 0\nb/bar/1.jpg 1\n")
    (lists / "val_places205.csv").write_text("b/bar/2.jpg 1\n")
    put(older / "images256", "a/abbey/1.jpg", "b/bar/1.jpg", "b/bar/2.jpg")
    test = opened("places", "test", labels=True, root=str(older))
    assert labelled(test) == {"images256/b/bar/2.jpg": "bar"}
    assert test.classes == ("abbey", "bar")
    put(tmp_path / "plain", "train/abbey/1.jpg", "train/bar/1.jpg", "val/bar/2.jpg")
    test = opened("places", "test", labels=True, root=str(tmp_path / "plain"))
    assert labelled(test) == {"val/bar/2.jpg": "bar"}


def celeba_at(root: Path, count: int = 6) -> Path:
    put(root / "img_align_celeba", *(f"{i:06d}.jpg" for i in range(1, count + 1)))
    rows = [
        f"{i:06d}.jpg {' '.join('1' if i >> b & 1 else '-1' for b in range(3))}"
        for i in range(1, count + 1)
    ]
    head = f"{count}\nBald Male Smiling\n"
    (root / "list_attr_celeba.txt").write_text(head + "\n".join(rows) + "\n")
    parts = [f"{i:06d}.jpg {(0, 0, 0, 1, 2, 2)[i - 1]}" for i in range(1, count + 1)]
    (root / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return root


def test_celeba_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import CelebA

    root = celeba_at(tmp_path / "celeba")
    for name in ("identity_CelebA", "list_bbox_celeba", "list_landmarks_align_celeba"):
        head = "" if name.startswith("identity") else "6\nx\n"
        rows = "\n".join(f"{i:06d}.jpg 1" for i in range(1, 7))
        (root / f"{name}.txt").write_text(f"{head}{rows}\n")
    for part in ("train", "test"):
        ours = opened("celeba", part, labels=True, root=str(root))
        same(ours, CelebA(str(tmp_path), part))
        assert ours.attributes == ("Bald", "Male", "Smiling")
        assert (ours.classes, ours.split_rule) == (None, "official partition")
    assert len(opened("celeba", "all", root=str(tmp_path))) == 6


def test_the_faces_at_hand(data_dir: Path) -> None:
    source = opened(data_dir / "faces", labels=True)
    assert source.labels is not None
    assert source.labels.shape == (26, 40)
    assert source.attributes is not None
    smiling = source.attributes.index("Smiling")
    assert source.labels[:4, smiling].tolist() == [1, 1, 0, 0]


def test_celeba_as_csv_and_its_mistakes(tmp_path: Path) -> None:
    root = celeba_at(tmp_path / "celeba")
    before = opened(root, "train", labels=True)
    for name, header in (
        ("list_attr_celeba", "image_id,Bald,Male,Smiling"),
        ("list_eval_partition", "image_id,partition"),
    ):
        lines = (root / f"{name}.txt").read_text().splitlines()[2 if "attr" in name else 0 :]
        text = "\n".join([header, *(line.replace(" ", ",") for line in lines)])
        (root / f"{name}.csv").write_text(text + "\n")
        (root / f"{name}.txt").unlink()
    again = opened(root, "train", labels=True)
    assert (again.fingerprint, again.attributes) == (before.fingerprint, before.attributes)
    bad = celeba_at(tmp_path / "bad")
    text = (bad / "list_attr_celeba.txt").read_text()
    (bad / "list_attr_celeba.txt").write_text(text.replace("6\n", "7\n", 1))
    assert "is not that of the lines that follow, 6" in refused(bad)
    (bad / "list_attr_celeba.txt").write_text(text.replace("000002.jpg -1", "000002.jpg 3"))
    assert "list_attr_celeba.txt:4: 3 values are expected" in refused(bad)


def annotation(*objects: tuple[str, int]) -> str:
    inner = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult></object>"
        for name, hard in objects
    )
    return f"<annotation>{inner}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    base = tmp_path / "voc" / "VOCdevkit" / "VOC2007"
    objects = {
        "000001": [("dog", 0), ("person", 1)],
        "000002": [("cat", 0), ("cat", 1)],
        "000003": [("dog", 1), ("dog", 0)],
    }
    put(base / "JPEGImages", *(f"{name}.jpg" for name in objects))
    (base / "Annotations").mkdir()
    (base / "ImageSets" / "Main").mkdir(parents=True)
    for name, found in objects.items():
        (base / "Annotations" / f"{name}.xml").write_text(annotation(*found))
    (base / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n000002\n")
    (base / "ImageSets" / "Main" / "test.txt").write_text("000003\n")
    return tmp_path / "voc"


def test_voc_has_the_classes_of_its_objects(voc: Path) -> None:
    from torchvision.datasets import VOCDetection

    train = opened("voc2007", "train", labels=True, root=str(voc))
    theirs = VOCDetection(str(voc), year="2007", image_set="trainval")
    same(train, theirs, labels=False)
    assert train.attributes is not None
    assert len(train.attributes) == 20
    assert train.labels is not None
    found = [
        {train.attributes[i]: int(row[i]) for i in np.flatnonzero(row)} for row in train.labels
    ]
    # Where all objects of a class are difficult, it counts for nothing.
    assert found == [{"dog": 1, "person": 255}, {"cat": 1}]
    own = opened(voc / "VOCdevkit" / "VOC2007", "test", labels=True)
    assert own.attributes == ("cat", "dog", "person")
    assert own.labels is not None
    assert own.labels.tolist() == [[0, 1, 0]]


def test_mistakes_about_voc(voc: Path) -> None:
    base = voc / "VOCdevkit" / "VOC2007"
    xml = base / "Annotations" / "000001.xml"
    for text, said in {
        annotation(("unicorn", 0)): "'unicorn' is not one of the 20 classes",
        "<annotation>": "is damaged",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>': "is no annotation",
    }.items():
        xml.write_text(text)
        assert said in refused("voc2007", "train", True, root=str(voc))
    # In UTF-16 the bytes of a declaration do not stand side by side.
    hidden = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    xml.write_bytes(hidden.encode("utf-16"))
    assert "is no annotation" in refused("voc2007", "train", True, root=str(voc))
    xml.unlink()
    assert "000001.xml cannot be read" in refused("voc2007", "train", True, root=str(voc))
    assert len(opened("voc2007", "train", root=str(voc))) == 2
    (base / "ImageSets" / "Main" / "test.txt").write_text("000009\n")
    assert "'JPEGImages/000009.jpg' is not in" in refused("voc2007", "test", root=str(voc))
    assert "is not laid out as voc2012" in refused("voc2012", root=str(voc))


# -- LSUN


def lmdb_at(folder: Path, first: int, count: int) -> None:
    import lmdb

    folder.mkdir(parents=True)
    with (
        lmdb.open(str(folder), map_size=1 << 24) as environment,
        environment.begin(write=True) as writing,
    ):
        for number in range(first, first + count):
            writing.put(f"{number:040x}".encode(), encoded("WEBP", number))


def test_lsun_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lmdb")
    from torchvision.datasets import LSUN

    for place, name in enumerate(("bedroom_train", "tower_train", "bedroom_val", "tower_val")):
        lmdb_at(tmp_path / f"{name}_lmdb", 10 * place, 3)
    monkeypatch.chdir(tmp_path)
    for part, ending in (("train", "train"), ("test", "val")):
        reader = LSUN(str(tmp_path), [f"bedroom_{ending}", f"tower_{ending}"])
        theirs = [reader[i] for i in range(len(reader))]
        for one in reader.dbs:
            one.env.close()  # a process must not open an LMDB twice
        ours = opened("lsun", part, labels=True, root=str(tmp_path))
        same(ours, theirs)
        assert ours.classes == ("bedroom", "tower")
    single = opened(tmp_path / "tower_train_lmdb", "train")
    assert len(single) == 2
    there = pickle.loads(pickle.dumps(ours))  # noqa: S301
    assert torch.equal(there.read(2), ours.read(2))
    data = tmp_path / "tower_val_lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192])
    assert "data.mdb cannot be used" in refused("lsun", "test", root=str(tmp_path))
