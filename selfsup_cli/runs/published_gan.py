"""What the thesis printed for GANs stabilised by noise (chapter 7).

Means and standard deviations over the last five checkpoints of one training.
"""

from __future__ import annotations

from collections.abc import Iterable

from selfsup_cli.runs.published_row import Fact, Row

CIFAR, STL, CELEBA = "cifar10", "stl10", "celeba"
FID, SCORE = "FID", "IS"
STANDARD = "Standard GAN"

_DCGAN = "networks of table 7.2"
_PROTOCOL: dict[str, Fact] = {
    "samples": 10_000,
    "real_images": 10_000,
    "updates": 100_000,
    "splits": 1,
}
# A printed number: its value, and how it stands there.
_Number = tuple[float, str]


def rows() -> Iterable[Row]:
    """Tables 7.1 and 7.3, and the numbers in the text of sections 7.3.2 and 7.3.3."""
    yield from _table_7_1()
    yield from _table_7_3()
    yield from _section_7_3_2()
    yield from _section_7_3_3()


def _row(
    table: str, method: str, dataset: str, metric: str, number: _Number, network: str = _DCGAN
) -> Row:
    value, printed = number
    return Row(
        table,
        method,
        "score",
        dataset,
        metric,
        value,
        unit="",
        network=network,
        trained_on=dataset,
        conditions=_PROTOCOL,
        printed=printed,
    )


def _about(value: float, deviation: float) -> _Number:
    return value, f"{value:g} ± {deviation:g}"


def _table_7_1() -> Iterable[Row]:
    everything = (
        # FID and IS on CIFAR-10, then on STL-10, each with its deviation
        (STANDARD, (46.1, 0.7), (6.12, 0.09), (78.4, 6.7), (8.22, 0.37)),
        ("(a)", (94.9, 4.9), (4.68, 0.12), (107.9, 2.3), (6.48, 0.19)),
        ("(b)", (69.0, 3.4), (5.05, 0.14), (107.2, 3.4), (6.39, 0.22)),
        ("(c)", (44.5, 3.2), (6.85, 0.20), (75.9, 1.9), (8.49, 0.19)),
        ("(d)", (29.7, 0.6), (7.16, 0.05), (66.5, 2.3), (8.64, 0.17)),
        ("(e)", (28.8, 0.7), (7.23, 0.14), (71.3, 1.7), (8.30, 0.12)),
        ("(f)", (27.7, 0.8), (7.31, 0.06), (63.9, 1.7), (8.81, 0.07)),
        ("(g)", (26.5, 0.6), (7.49, 0.04), (64.0, 1.4), (8.52, 0.16)),
        ("(h)", (29.8, 0.4), (6.55, 0.08), (66.9, 3.2), (8.38, 0.20)),
        ("(i)", (28.7, 0.6), (7.3, 0.05), (67.8, 3.2), (8.30, 0.11)),
    )
    table = "thesis table 7.1"
    for method, *numbers in everything:
        places = ((CIFAR, FID), (CIFAR, SCORE), (STL, FID), (STL, SCORE))
        for (dataset, metric), number in zip(places, numbers, strict=True):
            yield _row(table, method, dataset, metric, _about(*number))


def _table_7_3() -> Iterable[Row]:
    everything = (
        # FID and IS on CIFAR-10, FID on CelebA
        ("MMGAN", None, None, None),
        ("DCGAN", (33.4, 0.5), (6.73, 0.07), (25.4, 2.6)),
        ("WGAN-GP", (37.7, 0.4), (6.55, 0.08), (15.5, 0.2)),
        ("LSGAN", (38.7, 1.8), (6.73, 0.12), (21.4, 1.1)),
        ("SVM-GAN", (43.9, 1.0), (6.25, 0.09), (26.5, 1.9)),
        ("SNGAN", (29.1, 0.4), (7.26, 0.06), (13.2, 0.3)),
        ("MMGAN + DF", (33.1, 0.7), (6.91, 0.05), (16.6, 1.9)),
        ("DCGAN + DF", (31.2, 0.3), (6.95, 0.11), (14.7, 1.0)),
        ("LSGAN + DF", (36.7, 1.2), (6.63, 0.17), (19.9, 0.4)),
        ("SVM-GAN + DF", (28.7, 1.1), (7.31, 0.11), (12.7, 0.7)),
        ("SNGAN + DF", (25.9, 0.3), (7.47, 0.08), (10.5, 0.4)),
    )
    # What did not train is printed as bounds.
    failed: tuple[_Number, ...] = ((450, "> 450"), (1, "~ 1"), (350, "> 350"))
    table = "thesis table 7.3"
    for method, *numbers in everything:
        network = _DCGAN if method.startswith("SVM-GAN") else "the original networks, cut down"
        places = ((CIFAR, FID), (CIFAR, SCORE), (CELEBA, FID))
        for (dataset, metric), number, bound in zip(places, numbers, failed, strict=True):
            told = bound if number is None else _about(*number)
            yield _row(table, method, dataset, metric, told, network)


def _section_7_3_2() -> Iterable[Row]:
    for method, number in (("SNGAN", (66.3, 1.1)), ("SNGAN + DF", (58.3, 1.4))):
        yield _row("thesis section 7.3.2", method, STL, FID, _about(*number), "SNGAN")


def _section_7_3_3() -> Iterable[Row]:
    everything = (
        # with the networks of table 7.2, and with twice as many layers
        (STANDARD, 46, 135),
        ("SNGAN", 33, 111),
        ("GAN+GP", 28, 36),
        ("DFGAN", 27, 60),
        ("SNGAN + DF", None, 27.6),
    )
    for method, plain, doubled in everything:
        for value, network in ((plain, _DCGAN), (doubled, f"{_DCGAN}, twice as deep")):
            if value is not None:
                number = (float(value), f"{value:g}")
                yield _row("thesis section 7.3.3", method, CIFAR, FID, number, network)
