"""What the thesis printed for images (chapter 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from selfsup_cli.runs.published_artifacts import on_voc
from selfsup_cli.runs.published_row import OURS, RANDOM, Fact, Row

LABELS = "Labels"
STL, CELEBA, IMAGENET, PLACES = "stl10", "celeba", "imagenet", "places"

_ALEXNET, _BIGGER, _RESNET = "AlexNet", "a bigger AlexNet", "ResNet-34"
_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
_TOP1, _PRECISION = "top-1 accuracy", "mean average precision"
_SINGLE, _TEN = "single centre crop", "ten crops"
_ABOUT_9200 = "mean over the finest square grid that leaves at most 9600 features"
_EVERYTHING = "rotation + warp + LCI"


def rows() -> Iterable[Row]:
    """Figure 4.1 and tables 4.1 to 4.7, as on the page."""
    yield from _figure_4_1()
    yield from _table_4_1()
    yield from _table_4_2()
    yield from _table_4_3()
    yield from _table_4_4()
    yield from _table_4_5()
    yield from _table_4_6()
    yield from _table_4_7()


def _figure_4_1() -> Iterable[Row]:
    for method, value in ((f"ImageNet {LABELS}", 78.0), (OURS, 85.0)):
        yield Row(
            "thesis figure 4.1",
            method,
            "tiles",
            IMAGENET,
            _TOP1,
            value,
            network=_ALEXNET,
            trained_on=IMAGENET,
            conditions={"layer": "conv5"},
        )


def _table_4_1() -> Iterable[Row]:
    everything = (
        ("32×32 patches", 61.2),
        ("40×40 patches", 70.6),
        ("56×56 patches", 75.1),
        ("pre-trained and frozen F", 63.7),
        ("no adversarial loss w.r.t. C", 68.0),
        ("no patch autoencoding", 69.5),
        ("48×48 patches", 76.2),
    )
    for ablation, value in everything:
        yield Row(
            "thesis table 4.1",
            OURS,
            "probe",
            STL,
            _TOP1,
            value,
            network=_ALEXNET,
            trained_on=STL,
            conditions={
                "ablation": ablation,
                "transformations": "LCI",
                "layer": "conv5",
                "classifier": "one linear layer trained for 500 epochs",
                "pretraining_epochs": 200,
                "crop": 96,
            },
        )


_COMBINATIONS = (
    # transformations (none: random weights), conv1 … conv5 on STL-10, the same on CelebA
    ("", (48.4, 53.3, 51.1, 48.7, 47.9), (68.9, 70.1, 66.7, 65.3, 63.2)),
    ("warp", (57.2, 64.2, 62.8, 58.8, 55.3), (71.7, 73.4, 71.2, 68.8, 64.3)),
    ("LCI", (58.8, 67.2, 67.4, 68.1, 68.0), (71.3, 73.0, 72.0, 71.1, 68.0)),
    ("rotation", (58.2, 67.3, 69.3, 69.9, 70.1), (70.3, 70.9, 67.8, 65.6, 62.1)),
    ("warp + LCI", (59.3, 68.1, 69.5, 68.5, 67.2), (72.0, 73.9, 73.3, 72.1, 69.0)),
    ("rotation + warp", (57.4, 69.2, 70.7, 70.5, 70.6), (71.6, 73.6, 72.0, 70.1, 66.4)),
    ("rotation + LCI", (58.5, 69.2, 71.3, 72.8, 72.3), (71.3, 72.7, 71.9, 70.8, 66.7)),
    (_EVERYTHING, (59.2, 69.7, 71.9, 73.1, 73.7), (71.8, 74.0, 73.5, 72.5, 69.2)),
)


def _combinations(
    table: str,
    dataset: str,
    metric: str,
    values: Mapping[str, Sequence[float]],
    epochs: int,
    conditions: Mapping[str, Fact],
) -> Iterable[Row]:
    for kinds, found in values.items():
        trained: dict[str, Fact] = {"transformations": kinds, "pretraining_epochs": epochs}
        for layer, value in zip(_LAYERS, found, strict=True):
            yield Row(
                table,
                OURS if kinds else RANDOM,
                "probe",
                dataset,
                metric,
                value,
                network=_ALEXNET,
                trained_on=dataset if kinds else "",
                conditions={**(trained if kinds else {}), "layer": layer, **conditions},
            )


def _table_4_2() -> Iterable[Row]:
    conditions: dict[str, Fact] = {
        "split": "official train and test",
        "classifier": "one linear layer trained for 700 epochs",
        "pooling": "none",
        "crop": 64,
        "crops": _SINGLE,
    }
    values = {kinds: found for kinds, found, _ in _COMBINATIONS}
    return _combinations("thesis table 4.2", STL, _TOP1, values, 200, conditions)


def _table_4_3() -> Iterable[Row]:
    conditions: dict[str, Fact] = {
        "classifier": "one linear layer trained for 100 epochs",
        "pooling": "none",
        "crop": 96,
        "crops": _SINGLE,
    }
    values = {kinds: found for kinds, _, found in _COMBINATIONS}
    return _combinations("thesis table 4.3", CELEBA, _PRECISION, values, 100, conditions)


def _table_4_4() -> Iterable[Row]:
    everything: tuple[tuple[str, tuple[float | None, float | None, float | None]], ...] = (
        ("Krizhevsky et al.", (79.9, 59.1, 48.0)),
        (RANDOM, (53.3, 43.4, 19.8)),
        ("Agrawal et al.", (54.2, 43.9, None)),
        ("Bojanowski et al.", (65.3, 49.4, None)),
        ("Donahue et al.", (60.1, 46.9, 35.2)),
        ("Feng et al.", (74.3, 57.5, 45.3)),
        ("Gidaris et al.", (73.0, 54.4, 39.1)),
        ("Jayaraman & Grauman", (None, 41.7, None)),
        ("Jenni & Favaro", (69.8, 52.5, 38.1)),
        ("Krähenbühl et al.", (56.6, 45.6, 32.6)),
        ("Larsson et al.", (65.9, None, 38.0)),
        ("Noroozi & Favaro", (67.6, 53.2, 37.6)),
        ("Noroozi et al. [53]", (67.7, 51.4, 36.6)),
        ("Noroozi et al. [50]", (72.5, 56.5, 42.6)),
        ("Mahendran et al.", (64.4, 50.3, 41.4)),
        ("Mundhenk et al.", (69.6, 55.8, 41.4)),
        ("Owens et al.", (61.3, 44.0, None)),
        ("Pathak et al. [31]", (56.5, 44.5, 29.7)),
        ("Pathak et al. [61]", (61.0, 52.2, None)),
        ("Wang & Gupta", (63.1, 47.4, None)),
        ("Zhan et al.", (None, None, 44.5)),
        ("Zhang et al. [55]", (65.9, 46.9, 35.6)),
        ("Zhang et al. [56]", (67.1, 46.7, 36.0)),
        ("Doersch et al.", (65.3, 51.1, None)),
        ("Caron et al.", (73.7, 55.4, 45.1)),
        (OURS, (74.5, 56.8, 44.4)),
    )
    conditions: dict[str, Fact] = {"transformations": _EVERYTHING, "pretraining_epochs": 200}
    bigger = ("Doersch et al.", "Caron et al.")
    return on_voc("thesis table 4.4", everything, conditions, bigger=bigger)


def _layerwise(
    table: str, dataset: str, everything: Iterable[tuple[str, str, Sequence[float]]]
) -> Iterable[Row]:
    """Rows of (method, its network or crops, conv1 … conv5)."""
    for method, how, values in everything:
        ours = method == OURS
        for layer, value in zip(_LAYERS, values, strict=True):
            conditions: dict[str, Fact] = {"layer": layer}
            if ours:
                conditions |= {
                    "transformations": _EVERYTHING,
                    "pretraining_epochs": 200,
                    "crop": 227,
                    "pooling": _ABOUT_9200,
                }
            if method in (OURS, RANDOM):
                conditions["crops"] = how or _SINGLE
            yield Row(
                table,
                method,
                "probe",
                dataset,
                _TOP1,
                value,
                network=_BIGGER if how == _BIGGER else _ALEXNET,
                trained_on=IMAGENET if ours else "",
                conditions=conditions,
            )


def _table_4_5() -> Iterable[Row]:
    everything = (
        (f"ImageNet {LABELS}", "", (19.3, 36.3, 44.2, 48.3, 50.5)),
        (RANDOM, "", (11.6, 17.1, 16.9, 16.3, 14.1)),
        ("Donahue et al.", "", (17.7, 24.5, 31.0, 29.9, 28.0)),
        ("Feng et al.", "", (19.3, 33.3, 40.8, 41.8, 44.3)),
        ("Gidaris et al.", "", (18.8, 31.7, 38.7, 38.2, 36.5)),
        ("Huang et al.", "", (15.6, 27.0, 35.9, 39.7, 37.9)),
        ("Jenni & Favaro", "", (19.5, 33.3, 37.9, 38.9, 34.9)),
        ("Noroozi & Favaro", "", (18.2, 28.8, 34.0, 33.9, 27.1)),
        ("Noroozi et al. [53]", "", (18.0, 30.6, 34.3, 32.5, 25.7)),
        ("Noroozi et al. [50]", "", (19.2, 32.0, 37.3, 37.1, 34.6)),
        ("Tian et al.", "", (18.4, 33.5, 38.1, 40.4, 42.6)),
        ("Wu et al.", "", (16.8, 26.5, 31.8, 34.1, 35.6)),
        ("Zhang et al. [55]", "", (13.1, 24.8, 31.0, 32.6, 31.8)),
        ("Zhang et al. [56]", "", (17.7, 29.3, 35.4, 35.2, 32.8)),
        ("Zhang et al. [135]", "", (19.2, 32.8, 40.6, 39.7, 37.7)),
        ("Doersch et al.", _BIGGER, (16.2, 23.3, 30.2, 31.7, 29.6)),
        ("Caron et al.", _BIGGER, (12.9, 29.2, 38.2, 39.8, 36.1)),
        ("Zhuang et al.", _BIGGER, (18.7, 32.7, 38.1, 42.3, 42.4)),
        (OURS, "", (20.8, 34.5, 40.2, 43.1, 41.4)),
        (OURS, _TEN, (22.4, 37.4, 43.1, 46.6, 46.0)),
    )
    return _layerwise("thesis table 4.5", IMAGENET, everything)


def _table_4_6() -> Iterable[Row]:
    everything = (
        (f"Places {LABELS}", "", (22.1, 35.1, 40.2, 43.3, 44.6)),
        (f"ImageNet {LABELS}", "", (22.7, 34.8, 38.4, 39.4, 38.7)),
        (RANDOM, "", (15.7, 20.3, 19.8, 19.1, 17.5)),
        ("Donahue et al.", "", (22.0, 28.7, 31.8, 31.3, 29.7)),
        ("Feng et al.", "", (22.9, 32.4, 36.6, 37.3, 38.6)),
        ("Gidaris et al.", "", (21.5, 31.0, 35.1, 34.6, 33.7)),
        ("Jenni & Favaro", "", (23.3, 34.3, 36.9, 37.3, 34.4)),
        ("Noroozi & Favaro", "", (23.0, 31.9, 35.0, 34.2, 29.3)),
        ("Noroozi et al. [53]", "", (23.3, 33.9, 36.3, 34.7, 29.6)),
        ("Noroozi et al. [50]", "", (22.9, 34.2, 37.5, 37.1, 34.4)),
        ("Owens et al.", "", (19.9, 29.3, 32.1, 28.8, 29.8)),
        ("Pathak et al.", "", (18.2, 23.2, 23.4, 21.9, 18.4)),
        ("Wu et al.", "", (18.8, 24.3, 31.9, 34.5, 33.6)),
        ("Zhang et al. [55]", "", (16.0, 25.7, 29.6, 30.3, 29.7)),
        ("Zhang et al. [56]", "", (21.3, 30.7, 34.0, 34.1, 32.5)),
        ("Zhang et al. [135]", "", (22.1, 32.9, 37.1, 36.2, 34.7)),
        ("Doersch et al.", _BIGGER, (19.7, 26.7, 31.9, 32.7, 30.9)),
        ("Caron et al.", _BIGGER, (18.6, 30.8, 37.0, 37.5, 33.1)),
        ("Zhuang et al.", _BIGGER, (18.7, 32.7, 38.2, 40.3, 39.5)),
        (OURS, "", (24.1, 33.3, 37.9, 39.5, 37.7)),
        (OURS, _TEN, (25.5, 35.3, 40.1, 42.1, 40.3)),
    )
    return _layerwise("thesis table 4.6", PLACES, everything)


def _table_4_7() -> Iterable[Row]:
    everything = (
        ("Dosovitskiy et al.", 74.2),
        ("Dundar et al.", 74.1),
        ("Hjelm et al.", 77.0),
        ("Huang et al.", 76.8),
        ("Jenni & Favaro", 80.1),
        ("Ji et al.", 88.8),
        ("Oyallon et al.", 87.6),
        ("Swersky et al.", 70.1),
        ("Zhao et al.", 74.3),
        (OURS, 91.8),
    )
    for method, value in everything:
        ours = method == OURS
        conditions: dict[str, Fact] = {}
        if ours:
            conditions = {
                "split": "official train and test",
                "transformations": _EVERYTHING,
                "pretraining_epochs": 200,
                "classifier": "all layers fine-tuned for 300 epochs",
                "crops": _TEN,
            }
        yield Row(
            "thesis table 4.7",
            method,
            "classify",
            STL,
            _TOP1,
            value,
            # Its text says that the methods do not all use the same network.
            network=_RESNET if ours else "",
            trained_on=STL if ours else "",
            conditions=conditions,
        )
