"""Which videos a source has, with which labels, in which split; and what is said of mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videos import write_video

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.files import FileSource
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.source import ClipSource, LeftOut, check_bad_share
from selfsup_cli.errors import BadMediaError, InputError, TrainingError

Fill = Callable[[Path, Iterable[str]], Path]


def opened(
    source: Path | str | None, part: Any = "all", labels: bool = False, **data: Any
) -> FileSource:
    named = VideoData(source=None if source is None else str(source), **data)
    result = open_source(named, part, labels=labels, workers=0)
    assert isinstance(result, FileSource)
    assert isinstance(result, ClipSource)
    return result


def refused(source: Path | str | None, part: Any = "all", labels: bool = False, **data: Any) -> str:
    with pytest.raises(InputError) as caught:
        opened(source, part, labels, **data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sent(value: Any) -> Any:
    """What arrives in another process."""
    ours, theirs = Pipe()
    with ours, theirs:
        ours.send(value)
        return theirs.recv()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small videos of 4, 5, … frames."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_video(folder / f"{count}.avi", count, codec="mpeg4", size=(16, 16))
        for count in range(4, 9)
    ]


@pytest.fixture
def fill(clips: list[Path]) -> Fill:
    """Puts small videos under the given names into a folder."""

    def put(root: Path, names: Iterable[str]) -> Path:
        for number, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clips[number % len(clips)], root / name)
        return root

    return put


@pytest.fixture
def ucf(tmp_path: Path, fill: Fill) -> Path:
    """A dataset of two classes laid out as UCF101, with two splits."""
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Walk", "Jump") for g in (1, 2, 3)]
    root = fill(tmp_path / "mine", names)
    (root / "classInd.txt").write_text("1 Walk\r\n2 Jump\r\n")
    number = {"Walk": 1, "Jump": 2}
    for split, held in ((1, "g03"), (2, "g01")):
        train = [f"{n} {number[n.split('/')[0]]}" for n in names if held not in n]
        test = [n for n in names if held in n]
        (root / f"trainlist0{split}.txt").write_text("\n".join(train) + "\n")
        (root / f"testlist0{split}.txt").write_text("\n".join(test) + "\n")
    return root


def test_a_nested_folder_gives_all_its_videos_without_labels(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["b/x.mp4", "a.avi", "b/c/d.MKV", ".hidden.mp4", ".trash/y.mp4"])
    (root / "notes.txt").write_text("x")
    source = opened(root)
    assert list(source.ids) == ["a.avi", "b/c/d.MKV", "b/x.mp4"]
    assert source.num_frames.tolist() == [5, 6, 4]
    assert source.num_frames.dtype == np.int64
    assert (source.labels, source.classes) == (None, None)
    assert (source.name, source.split, source.split_rule) == ("f", "all", "all videos")
    assert source.other_files == 1
    assert list(source.left_out) == []


def test_class_folders_are_labels_only_where_labels_are_asked_for(
    tmp_path: Path, fill: Fill
) -> None:
    root = fill(tmp_path / "f", ["run/1.avi", "sit/2.avi", "run/deep/3.avi"])
    assert opened(root).labels is None
    source = opened(root, labels=True)
    assert source.classes == ("run", "sit")
    assert source.labels is not None
    assert dict(zip(source.ids, source.labels.tolist(), strict=True)) == {
        "run/1.avi": 0,
        "run/deep/3.avi": 0,
        "sit/2.avi": 1,
    }


def test_the_held_out_share_is_the_same_with_and_without_labels(tmp_path: Path, fill: Fill) -> None:
    names = [f"{c}/{i}.avi" for c in ("a", "b") for i in range(10)]
    root = fill(tmp_path / "f", names)
    train, test = opened(root, "train"), opened(root, "test", labels=True)
    assert len(test) == 4
    assert sorted([*train.ids, *test.ids]) == sorted(names)
    assert list(opened(root, "test").ids) == list(test.ids)
    assert test.split_rule == train.split_rule == "seeded 20 % held out (seed 0)"
    other = opened(root, "test", split_seed=1, test_share=0.5)
    assert len(other) == 10
    assert set(test.ids) != set(other.ids)


def test_train_and_test_folders_are_a_split(tmp_path: Path, fill: Fill) -> None:
    names = ["train/a/1.avi", "train/b/2.avi", "val/a/3.avi", "val/b/4.avi"]
    root = fill(tmp_path / "f", names)
    test = opened(root, "test", labels=True)
    assert list(test.ids) == names[2:]
    assert test.classes == ("a", "b")
    assert test.split_rule == "the folders train and val"
    assert list(opened(root, "train").ids) == names[:2]


def test_a_link_that_leads_back_ends(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["a/1.avi"])
    (root / "a" / "back").symlink_to(root)
    fill(tmp_path / "elsewhere", ["2.avi"])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(opened(root).ids) == ["a/1.avi", "linked/2.avi"]


def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["ä ö.avi"])
    shutil.copyfile(root / "ä ö.avi", bytes(root) + b"/bad\xff.avi")
    source = opened(root)
    assert list(source.ids) == ["ä ö.avi"]
    assert source.left_out == (LeftOut("bad\\xff.avi", "its name is not UTF-8"),)


def test_unreadable_files_are_named_and_the_others_used(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["good.avi"])
    (root / "text.mp4").write_text("no video")
    (root / "zero.mp4").touch()
    source = opened(root)
    assert list(source.ids) == ["good.avi"]
    assert [(out.id, out.reason) for out in source.left_out] == [
        ("text.mp4", "not a readable MP4, MOV, AVI, MKV or WebM file"),
        ("zero.mp4", "the file is empty"),
    ]


def test_the_real_broken_folder_mixed_with_good_files(data_dir: Path, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    shutil.copytree(data_dir / "broken", root)
    shutil.copytree(data_dir / "actions" / "Sit", root / "Sit")
    source = opened(root)
    videos = [p for p in (data_dir / "broken").iterdir() if p.suffix in (".mp4", ".avi")]
    good = {"one_frame.avi", "one_frame.mp4", "five_frames.avi", "portrait.mp4", "slow_5fps.avi"}
    good.add("tiny_16x16.avi")
    assert {name for name in source.ids if "/" not in name} == good
    assert {out.id for out in source.left_out} == {p.name for p in videos} - good
    assert len(source) == len(good) + len(list((root / "Sit").iterdir()))
    clip = source.read(0, np.zeros(16, np.int64), (112, 112))
    assert clip.shape == (3, 16, 112, 112)


def test_a_folder_laid_out_as_ucf101_is_taken_for_one(ucf: Path) -> None:
    train, test = opened(ucf, "train", labels=True), opened(ucf, "test", labels=True)
    assert train.classes == test.classes == ("Walk", "Jump")  # in the order of classInd.txt
    assert train.split_rule == "official split 1"
    assert test.labels is not None
    assert test.labels.tolist() == [0, 1]
    assert list(test.ids) == ["Walk/v_Walk_g03_c01.avi", "Jump/v_Jump_g03_c01.avi"]
    assert list(opened(ucf, "test", split=2).ids) == [
        name.replace("g03", "g01") for name in test.ids
    ]
    assert len(opened(ucf, "all", labels=True)) == 6
    assert not set(train.ids) & set(test.ids)


def test_without_labels_the_label_column_is_not_read(ucf: Path) -> None:
    path = ucf / "trainlist01.txt"
    path.write_text(path.read_text().replace(" 1\n", " 77\n"))
    (ucf / "classInd.txt").unlink()
    source = opened(ucf, "train")
    assert len(source) == 4
    assert (source.labels, source.classes) == (None, None)


def test_ucf101_as_its_archives_unpack(ucf: Path, tmp_path: Path) -> None:
    base = tmp_path / "data" / "ucf101"
    shutil.copytree(ucf, base / "UCF-101")
    (base / "ucfTrainTestlist").mkdir()
    for path in (base / "UCF-101").glob("*.txt"):
        path.rename(base / "ucfTrainTestlist" / path.name)
    source = opened("ucf101", "train", labels=True, root=str(base))
    assert (source.name, len(source)) == ("ucf101", 4)
    assert source.read(0, np.array([0, 3]), None).shape == (3, 2, 16, 16)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("trainlist01.txt", lambda s: s.replace(" 2\n", " 1\n"), ":3: class 1 is stated, but"),
        ("trainlist01.txt", lambda s: s + "Fly/x.avi 3\n", ":5: the class 'Fly' is not in"),
        ("trainlist01.txt", lambda s: s + "Walk/gone.avi 1\n", ":5: 'Walk/gone.avi' is not in"),
        ("trainlist01.txt", lambda s: s + s, "is listed twice"),
        ("trainlist01.txt", lambda s: s + "Walk/../../x.avi 1\n", "leads out of the dataset"),
        ("classInd.txt", lambda s: "1 Walk\nJump\n", ":2: 'Jump' is not NUMBER NAME"),
        ("trainlist01.txt", lambda s: "\n".join(s.splitlines()[:2]), "testing alone has 'Jump'"),
        ("trainlist01.txt", lambda s: "", "no videos"),
    ],
)
def test_mistakes_in_ucf101_lists_are_named_with_their_line(
    ucf: Path, file: str, change: Callable[[str], str], said: str
) -> None:
    path = ucf / file
    path.write_text(change(path.read_text()))
    assert said in refused(ucf, "train", labels=said != "no videos")


def test_missing_clips_are_counted(ucf: Path) -> None:
    for path in (ucf / "Walk").iterdir():
        path.unlink()
    message = refused(ucf, "train")
    assert "trainlist01.txt:1: 'Walk/v_Walk_g01_c01.avi' is not in" in message
    assert "1 other" in message


def test_a_split_that_does_not_exist(ucf: Path, tmp_path: Path, fill: Fill) -> None:
    assert "split 3 does not exist" in refused(ucf, "train", split=3)
    assert "1, 2" in refused(ucf, "train", split=3)
    assert "no numbered splits" in refused(fill(tmp_path / "f", ["a.avi"]), split=2)


def test_the_real_actions_and_both_their_splits(data_dir: Path) -> None:
    counts = {}
    for split in (1, 2):
        train = opened(data_dir / "actions", "train", labels=True, split=split)
        test = opened(data_dir / "actions", "test", labels=True, split=split)
        counts[split] = len(train), len(test)
        assert train.classes == ("Jump", "Run", "Sit", "Stand", "Turn", "Walk")
        assert not set(train.ids) & set(test.ids)
        assert train.labels is not None
        for name, label in zip(train.ids, train.labels, strict=True):
            assert name.startswith(f"{train.classes[label]}/")
    assert counts == {1: (132, 70), 2: (153, 49)}


@pytest.fixture
def hmdb(tmp_path: Path, fill: Fill) -> Path:
    root = fill(
        tmp_path / "hmdb51", [f"{c}/{c} #{i}.avi" for c in ("cartwheel", "hug") for i in range(4)]
    )
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in ("cartwheel", "hug"):
        lines = [f"{name} #{i}.avi {part} \n" for i, part in enumerate((1, 2, 0, 1))]
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return root


def test_hmdb51(hmdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(hmdb.parent))
    train, test = opened("hmdb51", "train", labels=True), opened("hmdb51", "test")
    assert list(train.ids) == [f"{c}/{c} #{i}.avi" for c in ("cartwheel", "hug") for i in (0, 3)]
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert list(test.ids) == ["cartwheel/cartwheel #1.avi", "hug/hug #1.avi"]
    assert test.labels is None
    assert len(opened(hmdb, "all", labels=True)) == 8
    assert "split 2 does not exist" in refused("hmdb51", "train", split=2)
    listed = hmdb / "testTrainMulti_7030_splits" / "hug_test_split1.txt"
    listed.write_text("hug #0.avi 5\n")
    assert "hug_test_split1.txt:1: 'hug #0.avi 5' is not CLIP 0, 1 or 2" in refused(hmdb, "train")


@pytest.fixture
def kinetics(tmp_path: Path, fill: Fill) -> Path:
    root = fill(
        tmp_path / "kinetics",
        [
            "train/air drumming/-abcdefghij_000010_000020.mp4",
            "train/yoga/bbbbbbbbbbb_000000_000010.mkv",
            "train/yoga/extra_000000_000010.mp4",
            "val/ccccccccccc_000123_000133.mp4",
        ],
    )
    header = "label,youtube_id,time_start,time_end,split\n"
    (root / "train.csv").write_text(
        f"{header}air drumming,-abcdefghij,10,20,train\n"
        "yoga,bbbbbbbbbbb,0.0,10.0,train\nyoga,vanished0000,5,15,train\n"
    )
    (root / "validate.csv").write_text(f"{header}yoga,ccccccccccc,123,133,validate\n")
    return root


def test_kinetics(kinetics: Path) -> None:
    train = opened("kinetics", "train", labels=True, root=str(kinetics))
    assert list(train.ids) == [
        "train/air drumming/-abcdefghij_000010_000020.mp4",
        "train/yoga/bbbbbbbbbbb_000000_000010.mkv",
    ]
    assert train.classes == ("air drumming", "yoga")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1]
    assert train.notes == ("1 of 3 annotated clips are not on this disk",)
    test = opened(kinetics, "test", labels=True)
    assert test.labels is not None
    assert (list(test.ids), test.labels.tolist()) == (["val/ccccccccccc_000123_000133.mp4"], [1])
    assert list(opened(kinetics, "train").ids) == list(train.ids)
    assert len(opened(kinetics)) == 3


def test_kinetics_clips_need_no_annotations_to_learn_from(kinetics: Path) -> None:
    (kinetics / "train.csv").unlink()
    assert len(opened("kinetics", "train", root=str(kinetics))) == 3
    message = refused("kinetics", "train", labels=True, root=str(kinetics))
    assert "there is no train.csv" in message
    assert "youtube_id" in message


def test_mistakes_in_kinetics(kinetics: Path) -> None:
    table = kinetics / "train.csv"
    good = table.read_text()
    table.write_text(good + "yoga,ddddddddddd,ten,20,train\n")
    assert "train.csv:5: time_start or time_end is no number" in refused(kinetics, "train")
    (kinetics / "validate.csv").write_text(good.replace("yoga", "Yoga"))
    table.write_text(good)
    message = refused(kinetics, "test", labels=True)
    assert "testing alone has 'Yoga'" in message
    assert "training alone has 'yoga'" in message
    shutil.rmtree(kinetics / "train")
    assert "none of its clips is in" in refused("kinetics", "train", root=str(kinetics))


@pytest.fixture
def table(tmp_path: Path, fill: Fill) -> Callable[[str], Path]:
    fill(tmp_path / "lists" / "clips", [f"{i}.avi" for i in range(6)])
    fill(tmp_path / "away", ["far.avi"])

    def write(text: str) -> Path:
        path = tmp_path / "lists" / "list.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_csv_with_its_own_split(table: Callable[[str], Path], tmp_path: Path) -> None:
    path = table(
        "\ufeffpath, label ,split,more\n"
        'clips/0.avi,"jump, high",train,x\n'
        "./clips/1.avi,run,train,x\n"
        "\n"
        "clips/2.avi,run,test,x\n"
        f"{tmp_path}/away/far.avi,run,val,x\n"
    )
    train = opened(path, "train", labels=True)
    assert (list(train.ids), train.classes) == (
        ["clips/0.avi", "clips/1.avi"],
        ("jump, high", "run"),
    )
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1]
    assert train.split_rule == "CSV column split"
    assert list(opened(path, "test").ids) == ["clips/2.avi"]
    everything = opened(path)
    assert everything.ids[3] == "../away/far.avi"
    assert everything.num_frames[3] == 4
    assert everything.name == "list"


def test_val_stands_in_for_a_missing_test(table: Callable[[str], Path]) -> None:
    path = table("path,split\nclips/0.avi,train\nclips/1.avi,val\n")
    assert list(opened(path, "test").ids) == ["clips/1.avi"]


def test_a_csv_without_split_is_divided_by_seed(table: Callable[[str], Path]) -> None:
    path = table("path,label\n" + "".join(f"clips/{i}.avi,c{i % 2}\n" for i in range(6)))
    train, test = opened(path, "train"), opened(path, "test", labels=True)
    assert (len(train), len(test)) == (5, 1)
    assert not set(train.ids) & set(test.ids)


def test_without_labels_a_csv_needs_none(table: Callable[[str], Path]) -> None:
    assert opened(table("path\nclips/0.avi\n")).labels is None
    assert opened(table("path,label\nclips/0.avi,\n")).labels is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "csv:1: the header has no column 'path'; it names: nothing"),
        ("file,label\nclips/0.avi,a\n", "csv:1: the header has no column 'path'; it names: file"),
        ("path,class\nclips/0.avi,a\n", "csv:1: the header has no column 'label'"),
        ("path,label\nclips/0.avi,a\nclips/1.avi\n", "csv:3: 1 cells, but the header has 2"),
        ("path,label\nclips/0.avi,a\nclips/1.avi,\n", "csv:3: 'label' is empty"),
        ("path,label\n,a\n", "csv:2: 'path' is empty"),
        ("path,label,split\nclips/0.avi,a,trian\n", "csv:2: split 'trian' is none of train"),
        ("path,label\nclips/0.avi,a\nclips/x.avi,b\n", "csv:3: 'clips/x.avi' is not in"),
        ("path,label\nclips/0.avi,a\nclips/./0.avi,b\n", "csv:3: 'clips/0.avi' is listed twice"),
        ("path,label\nclips/0.avi,a\nclips/1.avi,a\n", "all its rows have the label 'a'"),
        ("path,label\n", "lists no videos"),
        ('path,label\n"clips/0.avi,a\n', "cannot be read as CSV"),
        ("path,label,path\na,b,c\n", "names a column twice"),
        (
            "path,label,split\nclips/0.avi,a,train\nclips/1.avi,A,test\nclips/2.avi,b,train\n",
            "testing alone has 'A', training alone has 'a', 'b'",
        ),
        (
            "path,label,split\nclips/0.avi,a,test\nclips/1.avi,b,test\n",
            "testing alone has 'a', 'b'",
        ),
    ],
)
def test_mistakes_in_a_csv_are_named_with_their_line(
    table: Callable[[str], Path], text: str, said: str
) -> None:
    assert said in refused(table(text), "train" if "split" in text else "all", labels=True)


def test_a_csv_without_rows_of_a_split(table: Callable[[str], Path]) -> None:
    assert "no row of" in refused(table("path,split\nclips/0.avi,train\n"), "test")


def test_a_csv_that_is_no_text(table: Callable[[str], Path]) -> None:
    path = table("")
    path.write_bytes(b"path\n\xff\xfe\n")
    assert "cannot be read as CSV" in refused(path)


def test_names_that_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "unknown dataset 'ucf11' (did you mean 'ucf101'?)" in refused("ucf11")
    assert "there is no folder or CSV file" in refused("./ucf11")
    assert "there is no folder or CSV file" in refused(tmp_path / "nothing" / "here")
    assert "there is no folder or CSV file" in refused("list.csv")
    assert "no data is named" in refused(None)
    (tmp_path / "one.mp4").touch()
    assert "is a single video" in refused("one.mp4")
    (tmp_path / "one.txt").touch()
    assert "is no CSV file" in refused("one.txt")


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "kinetics"])
def test_a_registered_dataset_that_is_not_there_says_where_it_belongs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = {"ucf101": "classInd.txt", "hmdb51": "CLASS_test_splitN.txt", "kinetics": "train.csv"}
    monkeypatch.chdir(tmp_path)
    message = refused(name)
    assert "$SELFSUP_DATA, which is not set" in message
    assert layout[name] in message
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    message = refused(name)
    assert f"is looked for in {tmp_path / name}, which is no folder" in message
    assert layout[name] in message
    (tmp_path / name).mkdir()
    message = refused(name)
    assert f"{tmp_path / name} is not laid out as {name} must be" in message
    assert layout[name] in message
    assert "which is no folder" in refused(name, root=str(tmp_path / "no"))


def test_a_folder_of_a_registered_name_is_found_where_the_user_stands(
    hmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hmdb.parent)
    assert len(opened("hmdb51", "train")) == 4


def test_a_root_is_for_registered_datasets(ucf: Path) -> None:
    assert "--data-root is for registered datasets" in refused(ucf, root=str(ucf))


def test_a_folder_without_videos_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    assert "it is empty" in refused(tmp_path / "f")
    for name in ("a.jpg", "b.JPG", "c.wmv", "d"):
        (tmp_path / "f" / name).touch()
    message = refused(tmp_path / "f")
    assert ".mp4, .m4v, .mov, .avi, .mkv, .webm" in message
    assert "found instead: 2 .jpg" in message
    assert "1 .wmv" in message


def test_a_folder_of_broken_files(tmp_path: Path) -> None:
    root = tmp_path / "f"
    root.mkdir()
    for number in range(8):
        (root / f"{number}.mp4").write_text("no video")
    message = refused(root)
    assert "none of the 8 videos" in message
    assert "0.mp4: not a readable" in message
    assert "and 3 more" in message


@pytest.mark.parametrize(
    "names", [["a.avi", "b.avi"], ["one/a.avi", "one/b.avi"], ["a.avi", "c/b.avi"]]
)
def test_labels_of_data_that_has_none(tmp_path: Path, fill: Fill, names: list[str]) -> None:
    message = refused(fill(tmp_path / "f", names), labels=True)
    assert "has no labels" in message
    assert "CLASS/video.mp4" in message
    assert "path,label" in message


def test_class_names_that_differ_between_train_and_test(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["train/run/1.avi", "train/sit/2.avi", "test/Run/3.avi"])
    for split in ("train", "test"):
        message = refused(root, split, labels=True)
        assert "differ between train and test" in message
        assert "'Run'" in message
    assert len(opened(root, "test")) == 1


def test_too_little_to_hold_out(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["a.avi"])
    assert len(opened(root, "train")) == 1
    assert "no videos" in refused(root, "test")


def test_quarantined_files_are_left_out_and_named(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["a.avi", "b.avi", "c/d.avi"])
    (root / "bad.mp4").write_text("x")
    entries = [
        {"path": "a.avi", "reason": "flickers", "step": 3},
        {"path": str(root / "c/d.avi"), "reason": "black"},
        {"path": "bad.mp4"},
        {"path": "not/there.avi", "reason": "?"},
    ]
    path = tmp_path / "quarantine.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)) + "\n")
    source = opened(root, quarantine=str(path))
    assert list(source.ids) == ["b.avi"]
    assert {(out.id, out.reason) for out in source.left_out} == {
        ("a.avi", "quarantined: flickers"),
        ("c/d.avi", "quarantined: black"),
        ("bad.mp4", "quarantined: no reason given"),
    }
    check_bad_share(source, 0.0)


def test_mistakes_in_a_quarantine_file(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["a.avi"])
    path = tmp_path / "q.jsonl"
    assert "cannot be read" in refused(root, quarantine=str(path))
    for line in ("{", "3", "[]", '{"reason": "x"}'):
        path.write_text(f'{{"path": "z"}}\n{line}\n')
        assert "q.jsonl:2: not a quarantine entry" in refused(root, quarantine=str(path))
    path.write_text('{"path": "a.avi"}\n')
    assert "nothing is left" in refused(root, quarantine=str(path))


def test_more_bad_files_than_allowed_end_the_job(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", [f"{i}.avi" for i in range(18)])
    for name in ("x.mp4", "y.mp4"):
        (root / name).write_text("no video")
    source = opened(root)
    check_bad_share(source, 0.1)
    with pytest.raises(TrainingError, match="2 of 20 videos") as caught:
        check_bad_share(source, 0.099)
    assert "x.mp4: not a readable" in str(caught.value)
    assert caught.value.exit_status == 4


def test_a_source_survives_the_way_to_a_worker(tmp_path: Path, fill: Fill) -> None:
    source = opened(fill(tmp_path / "f", ["a/1.avi", "b/2.avi"]), labels=True)
    first = source.read(1, np.array([4, 0, 4]), (8, 12))
    assert first.shape == (3, 3, 8, 12)
    again = sent(source)
    assert np.array_equal(again.read(1, np.array([4, 0, 4]), (8, 12)), first)
    assert again.fingerprint == source.fingerprint
    assert list(again.ids) == list(source.ids)


def test_a_subset_is_a_source(tmp_path: Path, fill: Fill) -> None:
    root = fill(tmp_path / "f", ["a/1.avi", "a/2.avi", "b/3.avi"])
    source = opened(root, labels=True)
    subset = source.subset(np.array([2, 0]))
    assert isinstance(subset, ClipSource)
    assert (list(subset.ids), subset.num_frames.tolist()) == (["b/3.avi", "a/1.avi"], [6, 4])
    assert subset.labels is not None
    assert subset.labels.tolist() == [1, 0]
    assert subset.read(0, np.array([5]), None).shape == (3, 1, 16, 16)
    assert subset.fingerprint != source.fingerprint
    assert source.subset(np.array([0, 2])).fingerprint == subset.fingerprint
    assert len(source) == 3


def test_a_file_that_changes_or_goes_under_a_run_is_bad(
    tmp_path: Path, fill: Fill, clips: list[Path]
) -> None:
    root = fill(tmp_path / "f", ["a.avi", "b.avi", "c.avi"])
    source = opened(root)
    shutil.copyfile(clips[4], root / "a.avi")
    (root / "b.avi").unlink()
    with pytest.raises(BadMediaError, match="changed") as caught:
        source.read(0, np.array([0]), None)
    assert caught.value.path == "a.avi"
    with pytest.raises(BadMediaError, match="not exist"):
        source.read(1, np.array([0]), None)
    (root / "c.avi").write_text("no video any more")
    with pytest.raises(BadMediaError):
        source.read(2, np.array([0]), None)


def test_the_fingerprint_is_of_the_content_not_of_the_place(
    tmp_path: Path, fill: Fill, clips: list[Path]
) -> None:
    names = ["a/1.avi", "b/2.avi"]
    one = opened(fill(tmp_path / "one", names), labels=True)
    two = opened(fill(tmp_path / "two", names), labels=True)
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 64
    assert opened(tmp_path / "two").fingerprint != two.fingerprint
    (tmp_path / "two/b/2.avi").rename(tmp_path / "two/b/3.avi")
    assert opened(tmp_path / "two", labels=True).fingerprint != one.fingerprint
    (tmp_path / "one/b/2.avi").write_bytes(clips[1].read_bytes()[:-1] + b"?")
    assert opened(tmp_path / "one", labels=True).fingerprint != one.fingerprint


def test_packed_ids_are_a_list_of_strings() -> None:
    names = ["", "ä/ö.avi", "b" * 300, "z"]
    packed = PackedIds(names)
    assert list(packed) == [packed[i] for i in range(4)] == names
    assert packed[-1] == "z"
    assert list(packed[1:3]) == names[1:3]
    assert list(packed.take(np.array([3, 0, 3]))) == ["z", "", "z"]
    assert packed == PackedIds(iter(names))
    assert hash(packed) == hash(PackedIds(names))
    assert packed != PackedIds(["".join(names)])
    assert len(PackedIds()) == 0
    assert sent(packed) == packed
    with pytest.raises(IndexError):
        packed[4]
