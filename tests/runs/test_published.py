"""The thesis' numbers, as printed, and what is said of a run that did something else."""

from __future__ import annotations

from collections import Counter

import pytest

from selfsup_cli.runs.published import OURS, RANDOM, ROWS, SUPERVISED, published, table, tabled

FULL = ("speed", "random", "periodic", "warp")


def values(number: str, task: str, dataset: str, method: str = OURS) -> list[float]:
    return [
        row.value
        for row in table(number)
        if (row.task, row.dataset, row.method) == (task, dataset, method)
    ]


def test_tables_hold_every_printed_number() -> None:
    assert Counter(row.table for row in ROWS) == {
        "thesis table 3.1": 11,
        "thesis table 3.2": 7,
        "thesis table 3.3": 17 + 17 + 11,
        "thesis table 3.4": 11 * 5,
        "thesis table 3.5": 14 * 5,
        "thesis figure 4.1": 2,
        "thesis table 4.1": 7,
        "thesis table 4.2": 8 * 5,
        "thesis table 4.3": 8 * 5,
        "thesis table 4.4": 24 + 24 + 19,  # of 26 methods, each on what it was tried on
        "thesis table 4.5": 20 * 5,
        "thesis table 4.6": 21 * 5,
        "thesis table 4.7": 10,
        "thesis table 5.1": 16 * 2,
        "thesis table 5.2": 23 * 2 - 1,
        "thesis table 5.3": 4 * 3,
        "thesis table 5.4": 7 * 5,
        "thesis section 5.3 (still videos)": 4,
        "thesis table 6.1": 13 * 3,
        "thesis table 6.2": 48,  # of ten methods, each in what it was measured by
        "thesis table 7.1": 10 * 4,
        "thesis table 7.3": 11 * 3,
        "thesis section 7.3.2": 2,
        "thesis section 7.3.3": 9,
        "thesis table 8.1": 12 * 5 - 2,  # without the cell that stands there twice
        "thesis table 8.2": 2 * 3,
        "thesis table 8.3": 10 * 2 - 1,
        "thesis table 8.4": 2 * 2,
        "thesis section 8.4.3": 2 * 2,
    }


def test_columns_add_up_to_those_of_the_page() -> None:
    """Sums over the printed columns, added up from the page, so that a slip of a digit shows."""
    assert sum(values("5.1", "frozen", "ucf101")) == pytest.approx(792.8)
    assert sum(values("5.1", "finetune", "hmdb51")) == pytest.approx(523.8)
    assert values("5.2", "finetune", "ucf101") == [68.3, 69.9, 77.3, 79.3, 81.6]
    assert values("5.2", "finetune", "hmdb51") == [38.4, 39.6, 47.5, 49.8, 46.4]
    assert values("5.3", "sync", "ucf101") == [42.4, 1.61]
    assert values("5.3", "order", "ucf101") == [76.9]
    assert values("5.3", "order", "ucf101", SUPERVISED) == [66.6]
    assert values("5.4", "retrieve", "ucf101") == [26.1, 48.5, 59.1, 69.6, 82.8]
    assert [r.value for r in ROWS if r.task == "still"] == [18.5, 1.0]
    assert sum(r.value for r in table("5.2") if r.dataset == "ucf101") == pytest.approx(1574.5)
    assert sum(r.value for r in table("5.2") if r.dataset == "hmdb51") == pytest.approx(784.1)
    assert sum(r.value for r in table("5.4")) == pytest.approx(1472.2)
    layers = [f"conv{k}" for k in range(1, 6)]
    for number, sums in {
        "3.4": [182.9, 291.7, 340.4, 342.3, 310.6],
        "3.5": [288.7, 409.3, 446.4, 442.9, 417.0],
        "4.2": [457.0, 528.2, 534.0, 530.4, 525.1],
        "4.3": [568.9, 581.6, 568.4, 556.3, 528.9],
        "4.5": [353.4, 598.6, 717.7, 742.1, 709.6],
        "4.6": [442.3, 641.5, 720.8, 726.2, 690.7],
    }.items():
        rows = table(number)
        found = [sum(r.value for r in rows if r.conditions["layer"] == one) for one in layers]
        assert found == pytest.approx(sums)
    for number, total in {"3.1": 857.98, "3.2": 526.5, "4.1": 484.3, "4.7": 794.8}.items():
        assert sum(r.value for r in table(number)) == pytest.approx(total)
    tasks = ("classify", "detect", "segment")
    for number, sums in {"3.3": [1080.6, 817.6, 387.2], "4.4": [1582.6, 1206.6, 731.0]}.items():
        rows = table(number)
        found = [sum(r.value for r in rows if r.task == task) for task in tasks]
        assert found == pytest.approx(sums)
    assert [r.value for r in table("4.4") if r.method == OURS] == [74.5, 56.8, 44.4]
    errors = ("MPJPE", "NMPJPE", "PMPJPE")
    for number, task, sums in (
        ("6.1", "pose, S1", [1750.8, 1564.2, 1275.4]),
        ("6.2", "pose", [510.1, 749.1, 395.0]),
        ("6.2", "pose, S1", [801.6, 943.9, 789.9]),
    ):
        rows = [r for r in table(number) if r.task == task]
        found = [sum(r.value for r in rows if r.metric == one) for one in errors]
        assert found == pytest.approx(sums)


def test_the_protocol_of_the_thesis_is_comparable() -> None:
    found = published(
        "retrieve",
        "top-5",
        "ucf101",
        network="r3d",
        trained_on="kinetics",
        split="official split 1",
        layer="global average pool",
        clips=10,
        standardised=True,
    )
    assert found is not None
    assert (found.value, found.comparable, found.differs) == (48.5, True, [])
    assert found.where == "thesis table 5.4, 3D-ResNet18, trained on kinetics"


def test_what_differs_is_named_and_what_is_not_stated_too() -> None:
    found = published(
        "retrieve", "top-1", "ucf101", network="c3d", trained_on="ucf101", clips=10, layer="conv5"
    )
    assert found is not None
    assert not found.comparable
    assert found.value == 26.1
    assert found.differs == [
        "network: 3D-ResNet18 in the thesis, C3D here",
        "trained on: kinetics in the thesis, ucf101 here",
        "split: official split 1 in the thesis, not stated here",
        "layer: global average pool in the thesis, conv5 here",
        "standardised: yes in the thesis, not stated here",
    ]


@pytest.mark.parametrize(
    ("kinds", "speed_loss", "value"),
    [
        (FULL, True, 60.6),
        (reversed(FULL), True, 60.6),
        (FULL, False, 54.2),
        (("speed",), True, 49.3),
        (("warp", "speed"), False, 43.5),
        (("speed", "warp", "random"), True, 60.4),
    ],
)
def test_the_row_of_the_same_transformations_is_taken(
    kinds: tuple[str, ...], speed_loss: bool, value: float
) -> None:
    found = published(
        "frozen",
        "top-1 accuracy",
        "ucf101",
        network="c3d",
        trained_on="ucf101",
        transformations=list(kinds),
        speed_loss=speed_loss,
        classifier="linear",
    )
    assert found is not None
    assert found.value == value
    assert any(line.startswith("classifier: three fully") for line in found.differs)
    assert not any(line.startswith(("transformations", "speed loss")) for line in found.differs)


def test_the_network_and_the_data_choose_the_row() -> None:
    def value(network: str, trained_on: str) -> float:
        found = published(
            "finetune", "top-1 accuracy", "hmdb51", network=network, trained_on=trained_on,
            split="mean of the three official splits",
        )  # fmt: skip
        assert found is not None
        return found.value

    assert value("c3d", "kinetics") == 39.6
    assert value("r3d", "ucf101") == 47.5
    assert value("r2plus1d", "ucf101") == 46.4


def test_still_videos_of_both_kinds_of_features() -> None:
    ours = published("still", "top-1 accuracy", "ucf101", layer="conv5", network="c3d")
    labels = published("still", "top-1 accuracy", "ucf101", method=SUPERVISED)
    assert ours is not None
    assert labels is not None
    assert (ours.value, labels.value) == (1.0, 18.5)


@pytest.mark.parametrize(
    ("task", "metric", "dataset"),
    [
        ("retrieve", "top-1", "motion"),
        ("retrieve", "top-2", "ucf101"),
        ("probe", "top-1 accuracy", "ucf101"),
    ],
)
def test_what_the_thesis_did_not_print_is_not_made_up(task: str, metric: str, dataset: str) -> None:
    assert published(task, metric, dataset) is None


def test_every_row_can_be_shown() -> None:
    for row in ROWS:
        found = published(row.task, row.metric, row.dataset, method=row.method)
        assert found is not None
        assert found.differs
        assert ", ," not in row.where
        assert row.unit in ("%", "points", "frames", "mm", "")


def test_probes_of_images_find_the_row_of_their_transformations() -> None:
    turns = ["rotate90", "rotate180", "rotate270"]
    for kinds, value in (
        (["identity", *turns], 70.1),
        (["identity", "warp", *turns], 70.6),
        (["lci", "identity"], 68.0),
        (["identity", *turns, "warp", "lci"], 73.7),
    ):
        found = published(
            "probe", "top-1 accuracy", "stl10", layer="conv5", transformations=kinds,
            network="alexnet", trained_on="stl10", pretraining_epochs=200, crop=64,
            split="official train and test", pooling="none", crops="single centre crop",
            classifier="one linear layer trained for 700 epochs",
        )  # fmt: skip
        assert found is not None
        assert (found.value, found.comparable) == (value, True), found.differs
    other = published(
        "probe", "top-1 accuracy", "stl10", layer="conv5", network="alexnet", trained_on="stl10",
        transformations=["identity", "mirror", "rotate180"],
    )  # fmt: skip
    assert other is not None
    assert any(
        "rotate180 + mirror" in text or "mirror + rotate180" in text for text in other.differs
    )


def test_ten_crops_have_a_row_of_their_own() -> None:
    for crops, value in (("single centre crop", 43.1), ("ten crops", 46.6)):
        found = published(
            "probe", "top-1 accuracy", "imagenet", layer="conv4", network="alexnet", crops=crops
        )
        assert found is not None
        assert found.value == value
    random = published("probe", "top-1 accuracy", "places", method=RANDOM, layer="conv1")
    assert random is not None
    assert random.value == 15.7
    assert tabled("probe", "mean average precision", "celeba", "layer") == {
        f"conv{k}" for k in range(1, 6)
    }
    assert tabled("probe", "top-1 accuracy", "scenes", "layer") == set()


def test_gans_add_up_to_the_page() -> None:
    """Sums over the printed columns of tables 7.1 and 7.3, and numbers that stand as bounds."""
    sums = {
        (number, dataset, metric): sum(
            row.value for row in table(number) if (row.dataset, row.metric) == (dataset, metric)
        )
        for number, dataset, metric in (
            ("7.1", "cifar10", "FID"),
            ("7.1", "cifar10", "IS"),
            ("7.1", "stl10", "FID"),
            ("7.1", "stl10", "IS"),
            ("7.3", "cifar10", "FID"),
            ("7.3", "cifar10", "IS"),
            ("7.3", "celeba", "FID"),
        )
    }
    assert [round(value, 2) for value in sums.values()] == [
        425.7, 65.74, 769.8, 80.53, 788.4, 69.79, 526.4,
    ]  # fmt: skip
    bounds = {row.printed for row in table("7.3") if "±" not in row.printed}
    assert bounds == {"> 450", "~ 1", "> 350"}
    best = next(row for row in table("7.1") if row.method == "(g)")
    assert best.where == (
        "thesis table 7.1, (g), networks of table 7.2, trained on cifar10, printed as 26.5 ± 0.6"
    )


def test_labels_add_up_to_the_page() -> None:
    """Sums over the printed columns of tables 8.1 and 8.3, added up from the page; and gaps that
    are the differences of the accuracies beside them."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in table("8.1"):
        sums[row.task, row.metric] += row.value
    assert {key: round(value, 2) for key, value in sums.items()} == {
        ("clean labels", "accuracy on the given training labels"): 1101.31,
        ("clean labels", "top-1 accuracy"): 947.17,
        ("clean labels", "given training labels less test"): 154.14,
        ("50 % wrong labels", "accuracy on the given training labels"): 668.15,
        ("50 % wrong labels", "top-1 accuracy"): 547.13,
    }
    for method, network in {(row.method, row.network) for row in table("8.1")}:
        train, test, gap = (
            row.value
            for row in table("8.1")
            if (row.method, row.network, row.task) == (method, network, "clean labels")
        )
        assert train - test == pytest.approx(gap, abs=0.011)
    assert sum(row.value for row in table("8.3")) == pytest.approx(771.5 + 468.1)
