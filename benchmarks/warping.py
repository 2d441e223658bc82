"""Random warps of batches of images against kornia, solving image by image, and one affine map.

The allocator is left as it is: tuned as in our jobs, kornia takes half or a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable

import measure
import peers
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.transforms.warp import Controls, RandomWarp

# Images, their side, control points along it.
SIZES = ((32, 96, 4), (32, 128, 5), (16, 224, 5))
ROUNDS = 5
KORNIA, RANDOM, AFFINE = "≥ 25", "≥ 10", "≤ 1.4"
GRID, POINTS = "warp on a grid", "warp at random points"
_LOGARITHM = "two thirds are the logarithms of all distances, and grid_sample"
_SAMPLING = "grid_sample itself, which takes most of our time on images as small as these"
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """CPU time on one thread: speeds over those of others; our time over that of an affine map."""
    torch.set_num_threads(1)
    kornia = peers.find("kornia.geometry.transform")
    found: list[measure.Row] = []
    for count, side, points in SIZES:
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
        turn = torch.tensor([[1.0, 0.1, 0.0], [-0.1, 1.0, 0.0]]).expand(count, 2, 3)
        contenders: dict[str, Callable[[], object]] = {
            "affine": lambda x=images, t=turn: F.grid_sample(
                x, F.affine_grid(t, list(x.shape), align_corners=False), align_corners=False
            )
        }
        for placement in ("grid", "random"):
            warp = RandomWarp(side, side, points=points, placement=placement)  # type: ignore[arg-type]
            controls = warp.draw(count, torch.Generator().manual_seed(1))
            contenders[placement] = lambda x=images, w=warp, c=controls: w(x, c)
        contenders["one by one"] = lambda x=images, c=controls: one_by_one(x, c)
        if kornia is not None:
            contenders["kornia"] = lambda x=images, c=controls, k=kornia: by_kornia(k, x, c)
        spent = measure.interleaved(contenders, ROUNDS)
        size = f"{count} × {side}×{side}, {points**2} points"
        peer, alone = spent.get("kornia", measure.ABSENT), spent["one by one"]
        LIMITS[f"{POINTS}, {size}"] = _LOGARITHM
        LIMITS[f"{GRID}, {size}"] = _SAMPLING
        found += [
            (f"{GRID}, {size}", "kornia", peer / spent["grid"], KORNIA),
            (f"{GRID}, {size}", "solving for each image", alone / spent["grid"], ""),
            (f"{GRID}, {size}", "time of an affine map", spent["grid"] / spent["affine"], AFFINE),
            (f"{POINTS}, {size}", "kornia", peer / spent["random"], RANDOM),
            (f"{POINTS}, {size}", "solving for each image", alone / spent["random"], ""),
        ]
    return found


def one_by_one(images: Tensor, controls: Controls) -> Tensor:
    """A system built, solved and evaluated for each image, as it is written down."""
    side = images.shape[-1]
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.stack([column, row], -1).reshape(-1, 2).float()
    out = []
    for image, points, offsets in zip(images, controls.points, controls.offsets, strict=True):
        count = len(points)
        system = torch.zeros(count + 3, count + 3)
        system[:count, :count] = _kernel(torch.cdist(points, points))
        system[:count, count] = system[count, :count] = 1
        system[:count, count + 1 :] = points
        system[count + 1 :, :count] = points.T
        weights = torch.linalg.solve(system, F.pad(offsets, (0, 0, 0, 3)))
        basis = torch.cat(
            [_kernel(torch.cdist(pixels, points)), torch.ones(len(pixels), 1), pixels], 1
        )
        grid = (2 * (pixels - basis @ weights) + 1) / side - 1
        place = grid.view(1, side, side, 2)
        out.append(F.grid_sample(image[None], place, padding_mode="border", align_corners=False))
    return torch.cat(out)


def _kernel(distance: Tensor) -> Tensor:
    return distance**2 * torch.log(distance + 1e-6)


def by_kornia(kornia: object, images: Tensor, controls: Controls) -> Tensor:
    """The same work in kornia's own convention."""
    to = controls.points / images.shape[-1] * 2 - 1
    source = to - controls.offsets / images.shape[-1] * 2
    kernel, affine = kornia.get_tps_transform(to, source)  # type: ignore[attr-defined]
    out: Tensor = kornia.warp_image_tps(images, source, kernel, affine)  # type: ignore[attr-defined]
    return out


if __name__ == "__main__":
    measure.main(rows, LIMITS)
