"""Batches of k mini-batches in which every label is equally frequent (thesis, section 8.3).

Gradients agree or disagree for what a mini-batch contains before anything else: mini-batches are
compared only where their labels are the same (remark 1 of section 8.2.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Sampler

from selfsup_cli.data.loader import Key
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import generator


class MatchedSampler(Sampler[list[Key]]):
    """Batches of `splits` mini-batches, one after the other, whose labels are the same multiset.

    `labels` are int64 `[N]`, as noisy as they are given (of several labels an image: see `strata`).
    All N labels stand in a list that is shuffled once; each step takes the next `batch_size /
    splits` of it, from the beginning again after the end, so that over an epoch of N / batch_size
    steps classes are as frequent as they are. For each such label every mini-batch takes another
    image from the queue of the class, which is shuffled anew whenever it is exhausted. The first
    mini-batch is the one that validates.

    Rules: an image that the queue would give twice in one step (where it is shuffled anew) is
    replaced by one of the class that the step has not. A class with fewer images than it has places
    in the step repeats some; then the validation mini-batch draws from one share of them and the
    others from the rest, so that no image validates itself, unless it is the only one of its class.

    With `validation`, a share of the images of each class (0 … 0.5, at least one image) is used for
    the first mini-batch alone and never trained on; the only image of a class stands for both.

    Every step is a function of (seed, step). Keys are (visit, position): a number that differs for
    each visit of an image, for what is drawn for it, and its place in `labels`. With `world`
    processes each gets whole mini-batches, as `BilevelGradient` with `spread` wants them. Raises
    InputError for batches that cannot be had.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        splits: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        validation: float = 0.0,
    ) -> None:
        _check(len(labels), batch_size, splits, world, validation)
        self.batch_size = batch_size
        self.splits = splits
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0
        self._classes, codes = np.unique(labels, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        if validation:
            shared = [self._divided(number, part, validation) for number, part in enumerate(parts)]
            self._pools = [[one for one, _ in shared], [other for _, other in shared]]
        else:
            self._pools = [parts]
        trained = self._pools[-1]
        if sum(map(len, trained)) < batch_size:
            raise InputError(
                f"{sum(map(len, trained))} training samples do not fill one batch of {batch_size}",
                kind="batch-size",
            )
        listed = np.concatenate([np.full(len(part), n) for n, part in enumerate(trained)])
        self._list = listed[_shuffled(len(listed), seed, "labels")]
        # How many of the same label stand before each: with it a step is found without the others.
        self._before = np.empty(len(listed), np.int64)
        by_class = np.argsort(self._list, kind="stable")
        self._before[by_class] = np.concatenate([np.arange(len(part)) for part in trained])
        self._queue = lru_cache(2 * len(parts))(self._shuffled_pool)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._list) // self.batch_size

    @property
    def few(self) -> dict[int, int]:
        """The labels with fewer images than mini-batches take at once, and how many they have."""
        return {
            int(self._classes[number]): len(part)
            for number, part in enumerate(self._pools[-1])
            if len(part) < self.splits - len(self._pools) + 1
        }

    def __iter__(self) -> Iterator[list[Key]]:
        share = self.batch_size // self.world
        for batch in range(self.start, len(self)):
            keys = self.step(self.epoch * len(self) + batch)
            yield keys[self.rank * share : (self.rank + 1) * share]

    def step(self, step: int) -> list[Key]:
        """The keys of step `step` of the whole training, split by split in the order of labels."""
        size = self.batch_size // self.splits
        places = np.arange(step * size, (step + 1) * size)
        rounds, places = np.divmod(places, len(self._list))
        wanted = self._list[places]
        keys = np.empty((self.splits, size, 2), np.int64)
        for number in np.unique(wanted):
            of = np.flatnonzero(wanted == number)
            length = len(self._pools[-1][number])
            turns = rounds[of] * length + self._before[places[of]]
            keys[:, of] = self._drawn(int(number), turns, step)
        return [(int(visit), int(position)) for visit, position in keys.reshape(-1, 2)]

    def _drawn(self, number: int, turns: np.ndarray, step: int) -> np.ndarray:
        """Keys `[splits, len(turns), 2]` where the label comes up for the `turns`-th time."""
        if len(self._pools) == 1:
            return self._taken(0, number, turns, self.splits, step)
        apart = 0 if len(self._pools[0][number]) else 1
        first = self._taken(apart, number, turns, 1, step)
        return np.concatenate([first, self._taken(1, number, turns, self.splits - 1, step)])

    def _taken(self, pool: int, number: int, turns: np.ndarray, each: int, step: int) -> np.ndarray:
        """Keys `[each, len(turns), 2]`: at every turn the next `each` of a queue."""
        images = self._pools[pool][number]
        places = turns * each + np.arange(each)[:, None]
        count = len(images)
        if count < places.size:
            return self._repeated(pool, number, places.shape, step)
        rounds, inside = np.divmod(places, count)
        keys = np.empty((*places.shape, 2), np.int64)
        keys[..., 0] = rounds
        for visit in np.unique(rounds):
            now = rounds == visit
            keys[now, 1] = self._queue(pool, number, int(visit))[inside[now]]
        flat = keys.reshape(-1, 2)
        _, first = np.unique(flat[:, 1], return_index=True)
        if len(first) < len(flat):
            again = np.setdiff1d(np.arange(len(flat)), first)
            rest = np.setdiff1d(images, flat[:, 1])
            chosen = _shuffled(len(rest), self.seed, step, pool, number, "instead")[: len(again)]
            flat[again] = np.stack([self._visits(step, again), rest[chosen]], 1)
        return keys

    def _repeated(self, pool: int, number: int, shape: tuple[int, ...], step: int) -> np.ndarray:
        """The same of a class with fewer images than places."""
        images = self._pools[pool][number]
        images = images[_shuffled(len(images), self.seed, step, pool, number, "few")]
        keys = np.empty((*shape, 2), np.int64)
        apart = 0
        if len(self._pools) == 1 and len(images) > 1:
            apart = min(max(round(len(images) / shape[0]), 1), len(images) - 1)
            keys[0, :, 1] = np.resize(images[:apart], shape[1])
            keys[1:, :, 1] = np.resize(images[apart:], (shape[0] - 1, shape[1]))
        else:
            keys[..., 1] = np.resize(images, shape)
        keys[..., 0] = self._visits(step, np.arange(keys[..., 0].size)).reshape(shape)
        return keys

    def _visits(self, step: int, places: np.ndarray) -> np.ndarray:
        """Numbers that no queue counts, for visits outside of it."""
        visits: np.ndarray = -1 - (step * self.batch_size + places)
        return visits

    def _shuffled_pool(self, pool: int, number: int, visit: int) -> np.ndarray:
        images = self._pools[pool][number]
        order = _shuffled(len(images), self.seed, pool, number, visit, "queue")
        taken: np.ndarray = images[order]
        return taken

    def _divided(
        self, number: int, images: np.ndarray, share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The images of a class for validation, and those for training."""
        count = max(round(share * len(images)), 1) if len(images) > 1 else 0
        images = images[_shuffled(len(images), self.seed, number, "validation")]
        return images[:count], images[count:]


def strata(labels: np.ndarray, splits: int) -> np.ndarray:
    """One label int64 `[N]` for each row of several, uint8 `[N, A]`, for `MatchedSampler`.

    Images of exactly the same labels share one where there are at least `splits` of them, so that
    mini-batches match in all labels. An image of a rarer combination goes by the rarest of its
    labels alone; what comes with that is as frequent in every mini-batch on average only. Labels
    that are not known (255) count as absent. Images without any label share one of their own.
    """
    has = labels == 1
    combinations, code, count = np.unique(has, axis=0, return_inverse=True, return_counts=True)
    code = code.reshape(-1)
    frequency = has.sum(0)
    rarest = np.where(combinations, frequency, len(labels) + 1).argmin(1)
    alone = count < splits
    alone &= combinations.any(1)
    return np.asarray(np.where(alone, rarest, labels.shape[1] + np.arange(len(count)))[code])


def _check(samples: int, batch_size: int, splits: int, world: int, validation: float) -> None:
    if splits < 2:
        raise InputError(
            "a batch has at least 2 mini-batches: one validates, the others are followed",
            kind="splits",
        )
    if splits > batch_size or batch_size % splits:
        near = max(batch_size // splits, 1) * splits
        raise InputError(
            f"a batch of {batch_size} cannot be divided into {splits} mini-batches of equal size; "
            f"use --batch-size {near}",
            kind="batch-size",
        )
    if splits % world:
        raise InputError(
            f"{splits} mini-batches cannot be shared equally by {world} devices", kind="splits"
        )
    if samples < batch_size:
        fits = samples // splits * splits
        advice = f"--batch-size {fits} or less" if fits else "fewer --mini-batches or more images"
        raise InputError(
            f"{samples} training samples do not fill one batch of {batch_size}; use {advice}",
            kind="batch-size",
        )
    if not 0 <= validation <= 0.5:
        raise InputError(
            f"the share of images that validate is at least 0 and at most 0.5, not {validation:g}",
            kind="validation",
        )


def _shuffled(count: int, seed: int, *address: int | str) -> np.ndarray:
    return torch.randperm(count, generator=generator(seed, *address)).numpy()
