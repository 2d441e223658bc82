"""What the thesis printed for learning from few or wrong labels (chapter 8).

`task` says of which labels a network learned. Accuracies on training images are by the labels that
were given. Table 8.1 prints 81.60 and 49.62 for weights per layer with half the labels wrong, with
CifarNet and with Inception alike: one of them is a slip, and as Inception is worse in that row on
clean labels, its numbers are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from selfsup_cli.runs.published_row import Fact, Row

CIFAR, CIFAR_100, IMAGENET, CLOTHING = "cifar10", "cifar100", "imagenet", "clothing1m"
CLEAN, HALF, PERMUTED = "clean labels", "50 % wrong labels", "permuted pixels"
FORTY, PREDICTED, REAL = "40 % wrong labels", "predicted labels", "labels of the web"
TEST, TRAIN, GAP = (
    "top-1 accuracy",
    "accuracy on the given training labels",
    "given training labels less test",
)
SGD, BASELINE, BILEVEL, MIXUP = "SGD", "Baseline", "Bilevel", "mixup"

_ABLATIONS: dict[str, Fact] = {"epochs": 200, "batch_size": 128}
_AFTER_NOISY, _AFTER_CLEAN = "noisy labels alone", "then fine-tuned on clean labels"


def rows() -> Iterable[Row]:
    """Tables 8.1 to 8.4, and the numbers for Clothing1M in the text of section 8.4.3."""
    yield from _table_8_1()
    yield from _table_8_2()
    yield from _table_8_3()
    yield from _table_8_4()
    for method, noisy, clean in ((BILEVEL, 69.9, 79.9), ("Patrini et al.", 69.8, 80.4)):
        for how, value in ((_AFTER_NOISY, noisy), (_AFTER_CLEAN, clean)):
            yield Row(
                "thesis section 8.4.3",
                method,
                REAL,
                CLOTHING,
                TEST,
                value,
                network="ResNet-50",
                trained_on=CLOTHING,
                conditions={"labels": how, "init": "weights of ImageNet"},
            )


def _fit(
    table: str, method: str, task: str, network: str, numbers: Iterable[float | None]
) -> Iterable[Row]:
    """Accuracies on training and test images of CIFAR-10, and the gap where one is printed."""
    trained = f"{CIFAR}, training images"
    places = ((trained, TRAIN, "%"), (CIFAR, TEST, "%"), (trained, GAP, "points"))
    for (dataset, metric, unit), value in zip(places, numbers, strict=False):
        if value is not None:
            yield Row(
                table,
                method,
                task,
                dataset,
                metric,
                value,
                unit=unit,
                network=network,
                trained_on=CIFAR,
                conditions=_ABLATIONS if table.endswith("8.1") else {"epochs": 200},
            )


def _table_8_1() -> Iterable[Row]:
    everything = (
        # clean labels: train, test, gap; half of them wrong: train, test
        ("CifarNet", SGD, (99.99, 75.68, 24.31), (96.75, 45.15)),
        ("CifarNet", BASELINE, (97.60, 75.52, 22.08), (89.28, 47.62)),
        ("CifarNet", "a)", (96.44, 74.32, 22.12), (95.50, 45.79)),
        ("CifarNet", "b)", (97.43, 74.36, 23.07), (81.60, 49.62)),
        ("CifarNet", "c)", (72.69, 68.19, 4.50), (16.13, 23.93)),
        ("CifarNet", "d)", (95.92, 74.76, 21.16), (82.22, 49.23)),
        ("Inception", SGD, (99.91, 88.13, 11.78), (65.06, 47.64)),
        ("Inception", BASELINE, (96.13, 87.78, 8.35), (45.43, 73.08)),
        ("Inception", "a)", (79.46, 77.07, 2.39), (33.86, 62.16)),
        ("Inception", "b)", (90.38, 85.25, 5.13), ()),
        ("Inception", "c)", (79.78, 78.25, 1.53), (17.71, 27.20)),
        ("Inception", "d)", (95.58, 87.86, 7.72), (44.61, 75.71)),
    )
    for network, method, clean, half in everything:
        yield from _fit("thesis table 8.1", method, CLEAN, network, clean)
        yield from _fit("thesis table 8.1", method, HALF, network, half)


def _table_8_2() -> Iterable[Row]:
    for method, numbers in ((SGD, (50.0, 33.2, 16.8)), (BILEVEL, (34.8, 33.6, 1.2))):
        yield from _fit("thesis table 8.2", method, PERMUTED, "Inception", numbers)


def _table_8_3() -> Iterable[Row]:
    preact, residual = "PreAct-ResNet-18", "ResNet"
    everything = (
        # CIFAR-10, CIFAR-100
        ("Reed et al.", residual, 62.3, 46.5),
        ("Goldberger et al.", residual, 69.9, 45.8),
        ("Azadi et al.", "AlexNet", 75.0, None),
        ("Jiang et al.", residual, 76.6, 56.9),
        (MIXUP, preact, 88.3, 56.4),
        (SGD, preact, 69.6, 44.9),
        ("Dropout", preact, 84.5, 50.1),
        ("Label smoothing", preact, 69.3, 46.1),
        (BILEVEL, preact, 87.0, 59.8),
        ("Bilevel + mixup", preact, 89.0, 61.6),
    )
    for method, network, *values in everything:
        for dataset, value in zip((CIFAR, CIFAR_100), values, strict=True):
            if value is not None:
                yield Row(
                    "thesis table 8.3",
                    method,
                    FORTY,
                    dataset,
                    TEST,
                    value,
                    network=network,
                    trained_on=dataset,
                )


def _table_8_4() -> Iterable[Row]:
    for method, noisy, clean in ((SGD, 50.75, 57.4), (BILEVEL, 52.69, 58.2)):
        for task, value in ((PREDICTED, noisy), (CLEAN, clean)):
            yield Row(
                "thesis table 8.4",
                method,
                task,
                IMAGENET,
                TEST,
                value,
                network="AlexNet",
                trained_on=IMAGENET,
            )
