"""Images with boxes: PASCAL VOC, COCO, XML beside images; what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxed_toys import coco, opened, picture, voc, xml
from PIL import Image

from selfsup_cli.data.annotations import read_coco, read_voc
from selfsup_cli.data.source import UNKNOWN
from selfsup_cli.errors import InputError

BIRD, FISH = ("bird", (11, 6, 20, 25)), ("fish", (1, 1, 40, 30))


# What is read


def test_voc_counts_from_one_and_coco_from_nought(tmp_path: Path) -> None:
    own = opened(voc(tmp_path / "voc", {"a": [BIRD], "b": [FISH]}))
    np.testing.assert_array_equal(own.boxes[0].boxes, [[10, 5, 20, 25]])
    np.testing.assert_array_equal(own.boxes[1].boxes, [[0, 0, 40, 30]])
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    file = coco(tmp_path / "c.json", {"a.png": [(3, [10, 5, 10, 20])], "b.png": []}, {3: "bird"})
    theirs = opened(file)
    np.testing.assert_array_equal(theirs.boxes[0].boxes, own.boxes[0].boxes)
    assert len(theirs.boxes[1].boxes) == 0


def test_difficult_objects_and_crowds_are_marked(tmp_path: Path) -> None:
    hard = ("bird", (1, 1, 9, 9), True)
    source = opened(voc(tmp_path, {"a": [BIRD, hard], "b": [hard], "c": [FISH]}))
    assert source.attributes == ("bird", "fish")
    assert [one.easy.tolist() for one in source.boxes] == [[True, False], [False], [True]]
    assert source.labels is not None
    assert source.labels.tolist() == [[1, 0], [UNKNOWN, 0], [0, 1]]
    file = tmp_path / "crowd.json"
    coco(file, {"a.png": [(1, [0, 0, 4, 4])]}, {1: "bird"})
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    assert read_coco(file).images["a.png"].objects[0].difficult


def test_lists_divide_and_classes_are_those_of_both_parts(tmp_path: Path) -> None:
    images = {"a": [BIRD, FISH], "b": [BIRD], "c": [FISH]}
    voc(tmp_path, images, {"train": ["a", "b"], "val": ["c"]})
    train, test = opened(tmp_path, "train"), opened(tmp_path, "test")
    assert (list(train.ids), list(test.ids)) == (
        ["JPEGImages/a.png", "JPEGImages/b.png"], ["JPEGImages/c.png"],
    )  # fmt: skip
    assert train.attributes == test.attributes == ("bird", "fish")
    assert test.boxes[0].labels.tolist() == [1]
    assert train.split_rule == "lists train and val"


@pytest.mark.parametrize("apart", [False, True])
def test_xml_lies_beside_images_or_in_a_folder(tmp_path: Path, apart: bool) -> None:
    images, notes = (tmp_path / "images", tmp_path / "annotations") if apart else (tmp_path,) * 2
    notes.mkdir(exist_ok=True)
    for number in range(10):
        picture(images / f"{number}.png")
        (notes / f"{number}.xml").write_text(xml([BIRD]))
    parts = [opened(tmp_path, split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [8, 2]
    assert parts[0].split_rule == "seeded 20 % held out (seed 0)"
    assert not {*parts[0].ids} & {*parts[1].ids}


def test_a_folder_of_coco_has_two_parts(tmp_path: Path) -> None:
    for name in ("train2017/1.png", "train2017/2.png", "val2017/1.png"):
        picture(tmp_path / name)
    notes = tmp_path / "annotations"
    names = {5: "bird", 2: "fish"}
    boxes = {"1.png": [(5, [0.0, 0.0, 5.5, 5.0])], "2.png": [(2, [1, 1, 4, 4])]}
    coco(notes / "instances_train2017.json", boxes, names)
    coco(notes / "instances_val2017.json", {"1.png": [(2, [3, 3, 4, 4])]}, names)
    train, test = opened(tmp_path, "train"), opened(tmp_path, "test")
    assert train.attributes == ("fish", "bird")
    assert (list(train.ids), list(test.ids)) == (
        ["train2017/1.png", "train2017/2.png"], ["val2017/1.png"],
    )  # fmt: skip
    assert train.boxes[0].boxes.tolist() == [[0, 0, 5.5, 5]]
    assert len(opened(tmp_path)) == 3


def test_official_voc_has_its_twenty_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    base = tmp_path / "voc2007" / "VOCdevkit" / "VOC2007"
    voc(base, {"a": [("dog", (1, 1, 9, 9))], "b": [("dog", (2, 2, 9, 9))]},
        {"trainval": ["a"], "test": ["b"]})  # fmt: skip
    for path in list((base / "JPEGImages").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
    source = opened("voc2007", "test")
    assert source.name == "voc2007"
    assert len(source.attributes or ()) == 20
    assert source.attributes is not None
    assert source.attributes[source.boxes[0].labels[0]] == "dog"


def test_boxes_are_clipped_and_that_is_told(tmp_path: Path) -> None:
    objects = [("bird", (0, 0, 41, 30)), ("bird", (-5, 3, 12, 35))]
    source = opened(voc(tmp_path, {"a": objects, "b": [BIRD]}))
    np.testing.assert_array_equal(source.boxes[0].boxes, [[0, 0, 40, 30], [0, 2, 12, 30]])
    # A pixel more is how edges are counted, and no news.
    assert source.notes == ("1 box reached beyond its image and was clipped",)


def test_fingerprints_tell_boxes_apart(tmp_path: Path) -> None:
    first = opened(voc(tmp_path, {"a": [BIRD], "b": [FISH]}))
    (tmp_path / "Annotations" / "a.xml").write_text(xml([("bird", (11, 6, 20, 26))]))
    second = opened(tmp_path)
    assert first.fingerprint != second.fingerprint
    part = second.subset(np.array([1]))
    assert (len(part), part.boxes[0].labels.tolist(), list(part.ids)) == (
        1, [1], ["JPEGImages/b.png"],
    )  # fmt: skip
    assert part.origin == second.fingerprint != part.fingerprint
    assert part.digest(0) == second.digest(1)


def test_real_photos_have_their_boxes(data_dir: Path) -> None:
    train, test = (opened(data_dir / "voc-raccoon", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 12)
    assert train.attributes == ("raccoon",)
    assert train.ids[0] == "JPEGImages/raccoon-1.jpg"
    assert train.boxes[0].boxes.tolist() == [[80, 87, 522, 408]]
    mini = opened(data_dir / "voc-mini")
    assert mini.attributes == ("bus", "car", "person")
    texts = [path.read_text() for path in sorted((data_dir / "voc-mini").glob("Annotations/*"))]
    assert [len(one.boxes) for one in mini.boxes] == [one.count("<object>") for one in texts]
    for one, (height, width) in zip(mini.boxes, mini.sizes.tolist(), strict=True):
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [width, height, width, height]).all()
        assert ((one.boxes[:, 2:] - one.boxes[:, :2]) > 1).all()


# What is refused


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([("bird", (50, 5, 60, 9))], r"a\.xml: the box of 'bird' \(49, 4, 60, 9\) has no area"),
        ([("bird", (9, 5, 8, 9))], "object 1 .bird.: its box ends before it begins"),
        ([("bird", (9, 5, "x", 9))], "object 1 .bird.: xmax is no number .'x'."),
        ([("bird", (9, 5, "nan", 9))], "xmax is no number"),
        ([("bird", (9, 5, "inf", 9))], "xmax is no number"),
        ([("", (9, 5, 12, 9))], "object 1 has no name"),
        ([], "annotations name no objects"),
    ],
)
def test_boxes_that_are_none(tmp_path: Path, objects: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(voc(tmp_path, {"a": objects}))


@pytest.mark.parametrize(
    "content",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
        "<annotation>",
        "",
        "no XML",
        "<annotation>" + " " * (1 << 20) + "</annotation>",
    ],
)
def test_annotations_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.xml"):
        read_voc(path)
    path.write_bytes('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'.encode("utf-16"))
    with pytest.raises(InputError, match=r"a\.xml is no annotation"):
        read_voc(path)


def test_images_and_annotations_belong_together(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", {"a": [BIRD], "b": [BIRD]})
    (root / "Annotations" / "c.xml").write_text(xml([BIRD], filename="c.jpg"))
    with pytest.raises(InputError, match=r"c\.xml names the image c\.jpg, which is not in"):
        opened(root)
    (root / "Annotations" / "c.xml").unlink()
    (root / "Annotations" / "b.xml").write_text(xml([BIRD], size=(30, 40)))
    with pytest.raises(InputError, match=r"b\.xml is of an image of 30×40 pixels.* 40×30"):
        opened(root)
    (root / "Annotations" / "b.xml").write_text(xml([BIRD], size=(0, 0)))
    assert len(opened(root)) == 2
    (root / "Annotations" / "b.xml").unlink()
    with pytest.raises(InputError, match=r"image JPEGImages/b\.png has no annotation .*b\.xml"):
        opened(root)
    listed = voc(tmp_path / "listed", {"a": [BIRD]}, {"train": ["a", "gone"], "val": ["a"]})
    with pytest.raises(InputError, match=r"gone"):
        opened(listed, "train")
    flat = tmp_path / "flat"
    picture(flat / "a.png")
    (flat / "a.xml").write_text(xml([BIRD]))
    (flat / "b.xml").write_text(xml([BIRD]))
    with pytest.raises(InputError, match=r"b\.xml names the image b\.jpg"):
        opened(flat, "train")


def test_a_class_that_training_never_saw(tmp_path: Path) -> None:
    hard = ("fish", (1, 1, 9, 9), True)
    lists = {"train": ["a"], "val": ["b"]}
    opened(voc(tmp_path / "hard", {"a": [BIRD], "b": [BIRD, hard]}, lists), "test")
    root = voc(tmp_path / "new", {"a": [BIRD, hard], "b": [BIRD, FISH]}, lists)
    with pytest.raises(InputError, match=r"b\.xml has an object 'fish'.*no training image has"):
        opened(root, "test")
    none = voc(tmp_path / "none", {"a": [BIRD], "b": [hard]}, lists)
    with pytest.raises(InputError, match="1 test images have no object"):
        opened(none, "test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": {}}, "no list 'images'"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]: name is no text"),
        ({"categories": [{"id": "1", "name": "a"}]}, r"categories\[0\]: id is no whole number"),
        ({"images": [{"id": 7, "file_name": "../a.png"}]}, "leads out of the dataset"),
        ({"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]}, "there twice"),
        ({"annotations": [{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "image 99"),
        ({"annotations": [{"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1]}]}, "category 9"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, -1, 1]}]}, "below 0"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]}]}, "four numbers"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": "0011"}]}, "four numbers"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1e999, 1]}]},
         "four numbers"),
    ],
)  # fmt: skip
def test_coco_that_is_none(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = coco(tmp_path / "x.json", {"a.png": [(1, [0, 0, 4, 4])]}, {1: "bird"}, change)
    with pytest.raises(InputError, match=rf"x\.json.*{said}"):
        read_coco(file)


def test_json_that_is_none_and_images_that_are_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in ("", "{", "[" * 100_000):
        file.write_text(content)
        with pytest.raises(InputError, match=r"x\.json is not JSON"):
            read_coco(file)
    coco(file, {"a.png": [(1, [0, 0, 4, 4])]}, {1: "bird"})
    with pytest.raises(InputError, match=r"names the image a\.png, which is in none"):
        opened(file)
    with pytest.raises(InputError, match="no folder or JSON file"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "empty" / "a.png")
    with pytest.raises(InputError, match="no XML file"):
        opened(tmp_path / "empty")
