"""Which images a source has, with which labels, in which split; and what is said of mistakes."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 (how things travel to loader processes)
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, put

from selfsup_cli.config.images import ImageData
from selfsup_cli.data import image, image_files
from selfsup_cli.data.images import open_images
from selfsup_cli.data.source import ImageSource, LeftOut, check_bad_share
from selfsup_cli.errors import BadMediaError, InputError, TrainingError


def opened(
    source: Path | str | None, part: Any = "all", /, labels: bool = False, **data: Any
) -> ImageSource:
    named = ImageData(source=None if source is None else str(source), **data)
    result = open_images(named, part, labels=labels, workers=0)
    assert isinstance(result, ImageSource)
    assert len(result.ids) == len(result) == len(result.sizes)
    return result


def refused(
    source: Path | str | None, part: Any = "all", /, labels: bool = False, **data: Any
) -> str:
    with pytest.raises(InputError) as caught:
        opened(source, part, labels=labels, **data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labelled(source: ImageSource) -> dict[str, str]:
    """The class of each image by its id."""
    assert source.labels is not None
    assert source.classes is not None
    assert source.labels.dtype == np.int64
    return {
        name: source.classes[label] for name, label in zip(source.ids, source.labels, strict=True)
    }


# -- folders


def test_a_nested_folder_gives_all_its_images_without_labels(tmp_path: Path) -> None:
    root = put(tmp_path / "f", "b/x.png", "a.jpg", "b/c/d.JPEG", "b/c/e.webp", ".hidden.jpg")
    (root / "notes.txt").write_text("x")
    source = opened(root)
    assert list(source.ids) == ["a.jpg", "b/c/d.JPEG", "b/c/e.webp", "b/x.png"]
    assert (source.labels, source.classes, source.attributes) == (None, None, None)
    assert (source.name, source.split, source.split_rule) == ("f", "all", "all images")
    assert source.sizes.tolist() == [[24, 32]] * 4
    for i, name in enumerate(source.ids):
        expected = image.decode((root / name).read_bytes())
        assert torch.equal(source.read(i), expected)
        assert source.read(i, 12).shape == (3, 12, 16)
        assert source.read(i, (7, 9)).shape == (3, 7, 9)


def test_class_folders_are_labels_only_where_labels_are_asked_for(tmp_path: Path) -> None:
    root = put(tmp_path / "f", "cat/1.jpg", "dog/2.jpg", "cat/deep/3.png")
    assert opened(root).labels is None
    source = opened(root, labels=True)
    assert source.classes == ("cat", "dog")
    assert labelled(source) == {"cat/1.jpg": "cat", "cat/deep/3.png": "cat", "dog/2.jpg": "dog"}


def test_train_and_test_folders_are_a_split(data_dir: Path) -> None:
    train, test = (opened(data_dir / "photos", part, labels=True) for part in ("train", "test"))
    assert (len(train), len(test)) == (480, 120)
    assert train.classes == test.classes
    assert np.bincount(test.labels).tolist() == [12] * 10  # type: ignore[arg-type]
    assert test.split_rule == "the folders train and test"
    assert set(labelled(train)) & set(labelled(test)) == set()


def test_the_held_out_share_is_the_same_with_and_without_labels(tmp_path: Path) -> None:
    names = [f"{c}/{i}.png" for c in "ab" for i in range(10)]
    root = put(tmp_path / "f", *names)
    train, test = opened(root, "train"), opened(root, "test", labels=True)
    assert len(test) == 4
    assert sorted([*train.ids, *test.ids]) == sorted(names)
    assert list(opened(root, "test").ids) == list(test.ids)
    assert test.split_rule == train.split_rule == "seeded 20 % held out (seed 0)"


def test_a_header_that_cannot_be_read_is_left_out_and_counted(data_dir: Path) -> None:
    source = opened(data_dir / "broken")
    out = {one.id: one.reason for one in source.left_out}
    assert out.keys() == {
        *("html_error_page.jpg", "text_renamed.jpg", "truncated_header.jpg", "zero_byte.jpg")
    }
    assert out["zero_byte.jpg"] == "the file is empty"
    with pytest.raises(TrainingError, match="4 of 17 images of broken"):
        check_bad_share(source, 0.01)
    at = list(source.ids).index("truncated_half.jpg")
    with pytest.raises(BadMediaError, match=r"^truncated_half\.jpg: it is truncated$"):
        source.read(at)
    turned = list(source.ids).index("exif_rotated.jpg")
    assert source.sizes[turned].tolist() == [300, 225]
    assert source.read(turned).shape == (3, 300, 225)


def test_quarantine_leaves_out_what_it_lists(tmp_path: Path) -> None:
    root = put(tmp_path / "f", "a.jpg", "b.jpg", "c.jpg")
    rows = [{"path": "a.jpg", "reason": "blurred"}, {"path": str(root / "c.jpg"), "reason": "dark"}]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = opened(root, quarantine=str(tmp_path / "q.jsonl"))
    assert list(source.ids) == ["b.jpg"]
    assert LeftOut("a.jpg", "quarantined: blurred") in source.left_out
    check_bad_share(source, 0.0)


def test_the_header_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(tmp_path / "f", "a.jpg", "b.png")
    (root / "bad.jpg").write_text("no image")
    first = opened(root)

    def never(path: Path, most: int = -1) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(image_files.image, "read_bytes", never)
    again = opened(root)
    assert (again.fingerprint, list(again.ids)) == (first.fingerprint, list(first.ids))
    assert again.sizes.tolist() == first.sizes.tolist()
    assert list(again.left_out) == list(first.left_out)


def test_large_metadata_before_the_header(tmp_path: Path) -> None:
    """What is looked at of a JPEG may end before its size is told."""
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", icc_profile=bytes(200_000)))
    assert opened(tmp_path).sizes.tolist() == [[24, 32]]


def test_fingerprints_tell_content_names_and_labels_apart(tmp_path: Path) -> None:
    root = put(tmp_path / "f", "a/1.png", "b/2.png", "b/3.png")
    first = opened(root)
    copied = tmp_path / "elsewhere" / "f"
    shutil.copytree(root, copied)
    assert opened(copied).fingerprint == first.fingerprint
    assert opened(root, labels=True).fingerprint != first.fingerprint
    (copied / "a" / "1.png").rename(copied / "a" / "4.png")
    renamed = opened(copied).fingerprint
    (copied / "a" / "4.png").write_bytes(encoded("PNG", seed=99))
    assert len({first.fingerprint, renamed, opened(copied).fingerprint}) == 3


def test_a_subset_is_a_source_of_its_own(tmp_path: Path) -> None:
    root = put(tmp_path / "f", "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    whole = opened(root, labels=True)
    some = whole.subset(np.array([3, 1]))
    assert list(some.ids) == ["b/4.png", "a/2.png"]
    assert some.labels is not None
    assert some.labels.tolist() == [1, 0]
    assert torch.equal(some.read(0), whole.read(3))
    assert some.fingerprint == whole.subset(np.array([1, 3])).fingerprint != whole.fingerprint
    assert torch.equal(some.subset(np.array([1])).read(0), whole.read(1))
    assert len(whole.subset(np.array([], np.int64))) == 0


def test_a_source_travels_to_other_processes(tmp_path: Path) -> None:
    source = opened(put(tmp_path / "f", "a.png", "b.jpg"))
    there = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert torch.equal(there.read(1), source.read(1))


def test_mistakes_about_folders(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no image files (.jpg" in refused(tmp_path / "empty")
    clips = data_dir / "ucf101-sample"
    assert "found instead: 2 .avi" in refused(clips)
    flat = put(tmp_path / "flat", "a.jpg", "b.jpg")
    assert "'a.jpg' does not lie in a class folder" in refused(flat, labels=True)
    assert "split 2 does not exist" in refused(flat, split=2)
    single = refused(flat / "a.jpg")
    assert "is a single image" in single
    assert "is nothing of that kind" in refused(data_dir / "README.md")
    assert "there is no folder or CSV file" in refused(tmp_path / "none")
    assert "did you mean 'cifar10'" in refused("cifar")
    assert "motion is a dataset of videos, and this command reads images" in refused("motion")
    assert "give --data a registered dataset (scenes" in refused(None)
    assert "--data-root is for registered datasets" in refused(flat, root=str(flat))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no")
    assert "none of the 1 images" in refused(tmp_path / "bad")


# -- CSV files


def test_a_single_image_cannot_be_divided_and_two_can(tmp_path: Path) -> None:
    put(tmp_path / "few", "a.png")
    data = ImageData(source=str(tmp_path / "few"), test_share=0.9)
    with pytest.raises(InputError, match="add images: training and testing need one each"):
        open_images(data, "test", labels=False, workers=1)
    put(tmp_path / "few", "a.png", "b.png")
    assert len(open_images(data, "test", labels=False, workers=1)) == 1
    assert len(open_images(data, "train", labels=False, workers=1)) == 1


def test_a_csv_lists_images_with_labels_and_parts(tmp_path: Path) -> None:
    put(tmp_path, "x/1.png", "x/2.png", "x/3.png", "x/4.png")
    table = tmp_path / "mine.csv"
    rows = ["x/1.png,cat,train", "x/2.png,dog,train", "x/3.png,cat,test", "x/4.png,dog,test"]
    table.write_text("path,label,split\n" + "\n".join(rows))
    train, test = (opened(table, part, labels=True) for part in ("train", "test"))
    assert labelled(train) == {"x/1.png": "cat", "x/2.png": "dog"}
    assert labelled(test) == {"x/3.png": "cat", "x/4.png": "dog"}
    assert test.split_rule == "CSV column split"
    assert opened(table).labels is None
    table.write_text("path,label\nx/1.png,cat\nx/9.png,dog\n")
    assert "mine.csv:3: 'x/9.png' is not in" in refused(table)
    table.write_text("path,label\nx/1.png,cat\nx/1.png,dog\n")
    assert "mine.csv:3: 'x/1.png' is listed twice" in refused(table)


def test_a_csv_of_attributes(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png", "3.png")
    table = tmp_path / "faces.csv"
    table.write_text("path,split,Smiling,Male\n1.png,train,1,-1\n2.png,train,0,\n3.png,test,1,1\n")
    train = opened(table, "train", labels=True)
    assert (train.classes, train.attributes) == (None, ("Smiling", "Male"))
    assert train.labels is not None
    assert train.labels.dtype == np.uint8
    assert train.labels.tolist() == [[1, 0], [0, 255]]
    assert opened(table, "train").attributes is None
    table.write_text("path,width\n1.png,300\n")
    assert "faces.csv:2: width is '300'; without a column label" in refused(table, labels=True)
    assert len(opened(table)) == 1


# -- registered datasets are looked for


def test_missing_data_says_where_it_belongs_and_how_it_must_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused("stl10")
    assert "belongs into the folder stl10 of $SELFSUP_DATA, which is not set" in said
    assert "unlabeled_X.bin" in said
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    assert f"is looked for in {tmp_path}/celeba, which is no folder" in refused("celeba")
    for name in ("cifar10", "cifar100", "stl10", "imagenet", "places", "celeba", "lsun"):
        (tmp_path / name).mkdir()
        said = refused(name)
        assert f"is not laid out as {name} must be" in said
        assert "expected in it" in said
