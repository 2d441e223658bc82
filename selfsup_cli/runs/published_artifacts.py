"""What the thesis printed for spotting artifacts (chapter 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfsup_cli.runs.published_row import OURS, RANDOM, Fact, Row

STL, IMAGENET, PLACES, VOC2007, VOC2012 = "stl10", "imagenet", "places", "voc2007", "voc2012"
SIGNAL = "damage and repair"
"""What chapter 3 learns from, where chapter 4 names its transformations."""

# Metrics of table 3.3 and table 4.4, by column: classification, detection, segmentation.
VOC_COLUMNS = (
    ("classify", VOC2007, "mean average precision"),
    ("detect", VOC2007, "mean average precision (VOC 2007, 11 points)"),
    ("segment", VOC2012, "mean intersection over union"),
)

_ALEXNET = "AlexNet"
_RANDOM_CROPS = "10 random crops, half of them mirrored"
_ON_IMAGENET: dict[str, Fact] = {"transformations": SIGNAL, "pretraining_epochs": 150}
_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
_TOP1 = "top-1 accuracy"


def rows() -> Iterable[Row]:
    """Tables 3.1 to 3.5, in the order in which they are printed."""
    yield from _table_3_1()
    yield from _table_3_2()
    yield from _table_3_3()
    yield from _table_3_4()
    yield from _table_3_5()


def on_voc(
    table: str,
    everything: Iterable[tuple[str, Sequence[float | None]]],
    conditions: dict[str, Fact],
    *,
    bigger: Sequence[str] = (),
) -> Iterable[Row]:
    """Rows of (method, classification, detection, segmentation); `conditions` are those of ours."""
    for method, values in everything:
        ours = method == OURS
        for (task, dataset, metric), value in zip(VOC_COLUMNS, values, strict=True):
            if value is None:
                continue
            own = conditions if task != "classify" else {**conditions, "crops": _RANDOM_CROPS}
            yield Row(
                table,
                method,
                task,
                dataset,
                metric,
                value,
                network="a bigger AlexNet" if method in bigger else _ALEXNET,
                trained_on=IMAGENET if ours else "",
                conditions=own if ours else {},
            )


def _table_3_1() -> Iterable[Row]:
    everything = (
        ("input image as real", 74.99),
        ("without mask prediction", 78.44),
        ("local repair network", 77.51),
        ("3×3 encoder convolutions", 79.84),
        ("no gating in repair layers", 79.66),
        ("no history of corrupted examples", 79.76),
        ("dropping rate 0.1", 70.92),
        ("dropping rate 0.3", 76.26),
        ("dropping rate 0.7", 81.06),
        ("dropping rate 0.9", 79.60),
        ("baseline", 79.94),
    )
    for ablation, value in everything:
        yield Row(
            "thesis table 3.1",
            OURS,
            "classify",
            STL,
            _TOP1,
            value,
            network=_ALEXNET,
            trained_on=STL,
            conditions={
                "ablation": ablation,
                "transformations": SIGNAL,
                "pretraining_epochs": 400,
                "split": "official train and test",
                "layer": "conv5",
                "classifier": "three fully connected layers trained for 200 epochs",
            },
        )


def _table_3_2() -> Iterable[Row]:
    others = (
        ("Dosovitskiy et al.", 74.2),
        ("Dundar et al.", 74.1),
        ("Huang et al.", 76.8),
        ("Swersky et al.", 70.1),
        ("Zhao et al.", 74.3),
    )
    for method, value in others:
        # Its text says that the methods do not all use the same network.
        yield Row(
            "thesis table 3.2", method, "classify", STL, _TOP1, value, network="", trained_on=""
        )
    ours = (
        ("one linear layer trained for 200 epochs", 76.9),
        ("one linear layer, all layers fine-tuned for 200 epochs", 80.1),
    )
    for classifier, value in ours:
        yield Row(
            "thesis table 3.2",
            OURS,
            "classify",
            STL,
            _TOP1,
            value,
            network=_ALEXNET,
            trained_on=STL,
            conditions={
                "transformations": SIGNAL,
                "pretraining_epochs": 400,
                "split": "mean of the ten official folds",
                "layer": "conv5",
                "classifier": classifier,
            },
        )


def _table_3_3() -> Iterable[Row]:
    everything: tuple[tuple[str, tuple[float | None, float | None, float | None]], ...] = (
        ("Krizhevsky et al.", (79.9, 56.8, 48.0)),
        (RANDOM, (53.3, 43.4, 19.8)),
        ("Agrawal et al.", (54.2, 43.9, None)),
        ("Bojanowski et al.", (65.3, 49.4, None)),
        ("Doersch et al.", (65.3, 51.1, None)),
        ("Donahue et al.", (60.1, 46.9, 35.2)),
        ("Jayaraman & Grauman", (None, 41.7, None)),
        ("Krähenbühl et al.", (56.6, 45.6, 32.6)),
        ("Larsson et al.", (65.9, None, 38.0)),
        ("Noroozi & Favaro", (67.6, 53.2, 37.6)),
        ("Noroozi et al.", (67.7, 51.4, 36.6)),
        ("Owens et al.", (61.3, 44.0, None)),
        ("Pathak et al. [31]", (56.5, 44.5, 29.7)),
        ("Pathak et al. [61]", (61.0, 52.2, None)),
        ("Wang & Gupta", (63.1, 47.4, None)),
        ("Zhang et al. [55]", (65.9, 46.9, 35.6)),
        ("Zhang et al. [56]", (67.1, 46.7, 36.0)),
        (OURS, (69.8, 52.5, 38.1)),
    )
    return on_voc("thesis table 3.3", everything, _ON_IMAGENET)


def _layerwise(
    table: str, dataset: str, everything: Iterable[tuple[str, Sequence[float]]]
) -> Iterable[Row]:
    for method, values in everything:
        ours = method == OURS
        for layer, value in zip(_LAYERS, values, strict=True):
            conditions: dict[str, Fact] = {"layer": layer}
            if ours:
                conditions |= {
                    **_ON_IMAGENET,
                    "crop": 227,
                    "pooling": "mean over the finest square grid that leaves at most 9600 features",
                }
            if method in (OURS, RANDOM):
                conditions["crops"] = "single centre crop"
            yield Row(
                table,
                method,
                "probe",
                dataset,
                _TOP1,
                value,
                network=_ALEXNET,
                trained_on=IMAGENET if ours else "",
                conditions=conditions,
            )


def _table_3_4() -> Iterable[Row]:
    everything = (
        ("ImageNet Labels", (19.3, 36.3, 44.2, 48.3, 50.5)),
        (RANDOM, (11.6, 17.1, 16.9, 16.3, 14.1)),
        ("Doersch et al.", (16.2, 23.3, 30.2, 31.7, 29.6)),
        ("Donahue et al.", (17.7, 24.5, 31.0, 29.9, 28.0)),
        ("Krähenbühl et al.", (17.5, 23.0, 24.5, 23.2, 20.6)),
        ("Noroozi & Favaro", (18.2, 28.8, 34.0, 33.9, 27.1)),
        ("Noroozi et al.", (18.0, 30.6, 34.3, 32.5, 25.7)),
        ("Pathak et al.", (14.1, 20.7, 21.0, 19.8, 15.5)),
        ("Zhang et al. [55]", (13.1, 24.8, 31.0, 32.6, 31.8)),
        ("Zhang et al. [56]", (17.7, 29.3, 35.4, 35.2, 32.8)),
        (OURS, (19.5, 33.3, 37.9, 38.9, 34.9)),
    )
    return _layerwise("thesis table 3.4", IMAGENET, everything)


def _table_3_5() -> Iterable[Row]:
    everything = (
        ("Places Labels", (22.1, 35.1, 40.2, 43.3, 44.6)),
        ("ImageNet Labels", (22.7, 34.8, 38.4, 39.4, 38.7)),
        (RANDOM, (15.7, 20.3, 19.8, 19.1, 17.5)),
        ("Doersch et al.", (19.7, 26.7, 31.9, 32.7, 30.9)),
        ("Donahue et al.", (22.0, 28.7, 31.8, 31.3, 29.7)),
        ("Krähenbühl et al.", (21.4, 26.2, 27.1, 26.1, 24.0)),
        ("Noroozi & Favaro", (23.0, 31.9, 35.0, 34.2, 29.3)),
        ("Noroozi et al.", (23.3, 33.9, 36.3, 34.7, 29.6)),
        ("Owens et al.", (19.9, 29.3, 32.1, 28.8, 29.8)),
        ("Pathak et al.", (18.2, 23.2, 23.4, 21.9, 18.4)),
        ("Wang & Gupta", (20.1, 28.5, 29.9, 29.7, 27.9)),
        ("Zhang et al. [55]", (16.0, 25.7, 29.6, 30.3, 29.7)),
        ("Zhang et al. [56]", (21.3, 30.7, 34.0, 34.1, 32.5)),
        (OURS, (23.3, 34.3, 36.9, 37.3, 34.4)),
    )
    return _layerwise("thesis table 3.5", PLACES, everything)
