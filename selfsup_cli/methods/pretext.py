"""What all methods on video share: a backbone and one linear layer that answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import Plan
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.heads import LinearHead
from selfsup_cli.randomness import derive, generator
from selfsup_cli.transforms import clips as pixels

Questions = Mapping[str, Sequence[str]]
"""What is recognised, and the possible answers to it. Labels bear the names of the questions."""

UNASKED = -1
"""Label of a clip to which a question does not apply."""


class Recogniser(nn.Module):
    """A backbone and one linear layer, whose outputs are split into the logits of each question."""

    def __init__(
        self,
        backbone: Backbone,
        questions: Questions,
        start: torch.Generator,
        *,
        xavier: bool = False,
        truncated: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sizes = {name: len(answers) for name, answers in questions.items()}
        outputs = sum(self.sizes.values())
        self.head = LinearHead(
            backbone.out_features, outputs, xavier=xavier, truncated=truncated, generator=start
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Clips float `[B, 3, T, H, W]`, or images `[B, 3, H, W]`, in [−1, 1] → logits
        `[B, answers]` of each question."""
        logits = self.head(self.backbone(inputs)).float()
        return dict(zip(self.sizes, logits.split(list(self.sizes.values()), 1), strict=True))


class VideoPretext(Trainable):
    """A method that learns from clips by answering questions whose answers it made itself.

    A method gives `plan` (which clips are taken from a video, with their labels) and, if it does
    something to pixels besides augmentation, `transform`. `kinds` names the K clips of a video.
    """

    networks = ("recogniser",)
    uses_labels: ClassVar[bool] = False
    questions: Questions
    kinds: Sequence[str]

    def __init__(self, preset: PretrainVideo, questions: Questions, kinds: Sequence[str]) -> None:
        super().__init__()
        self.preset = preset
        self.questions = questions
        self.kinds = kinds
        start = generator(preset.train.seed, "head")
        self.recogniser = Recogniser(
            initial_backbone(preset), questions, start, xavier=preset.network.head_init == "xavier"
        )

    @property
    def plan(self) -> Plan:
        """Which clips are taken from a video, with labels for each question."""
        raise NotImplementedError

    def transform(self, clips: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """What the labels say is done to pixels; uint8 `[B, 3, T, H, W]` in and out."""
        return clips

    @property
    def plain(self) -> Recogniser:
        """The network itself, also where it is wrapped for several processes."""
        network: Recogniser = getattr(self.recogniser, "module", self.recogniser)
        return network

    @property
    def backbone(self) -> Backbone:
        """What is kept after pretraining."""
        return self.plain.backbone

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": build_optimizer(self.recogniser, self.preset.optim)}

    def feed(self, batch: Batch, g: torch.Generator) -> Tensor:
        """What the network is fed in training: transformed, augmented, float in [−1, 1]."""
        clips = self.transform(batch["clip"], batch)
        return pixels.augment(clips, self.preset.augment, g, group=len(self.kinds))

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        clips = self.feed(batch, update.generator("augment"))
        with update.autocast():
            logits = self.recogniser(clips)
        out = losses(logits, batch)
        update(out["loss"])
        return out

    @torch.no_grad()
    def predict(self, clips: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits of each question for uint8 clips `[B, 3, T, H, W]`, cropped in the centre."""
        clips = self.transform(clips, labels)
        answers: dict[str, Tensor] = self.plain(pixels.center(clips, self.preset.augment.crop))
        return answers


def losses(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The cross-entropy of each question, each a mean over the clips it applies to, and their sum.

    Scalars `loss`, and `loss_NAME` and `acc_NAME` (0 … 1) for each question.
    """
    out: dict[str, Tensor] = {}
    for name, answers in logits.items():
        asked = labels[name] != UNASKED
        given, truth = answers[asked], labels[name][asked]
        out[f"loss_{name}"] = F.cross_entropy(given, truth)
        out[f"acc_{name}"] = (given.argmax(1) == truth).float().mean()
    total = torch.stack([value for name, value in out.items() if name.startswith("loss_")]).sum()
    return {"loss": total, **out}


def initial_backbone(preset: PretrainVideo) -> Backbone:
    """The backbone before training, a function of the preset and its seed."""
    return build(
        preset.network.arch,
        width=preset.network.width,
        shortcut=preset.network.shortcut,
        frames=preset.frames,
        crop=preset.augment.crop,
        resize=preset.augment.resize_to_evaluate,
        seed=derive(preset.train.seed, "backbone"),
    )
