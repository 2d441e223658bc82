"""Names that users type. Tests hold them to the code.

The shell asks for them while someone waits for a TAB, so this module imports nothing: `typing` or
`dataclasses` alone take as long as starting Python.
"""

from __future__ import annotations

from selfsup_cli.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["image", "video"]
    Medium = Literal["image", "video", "point", "view"]

_CONV_FC = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2")
_RESIDUAL = ("stem", "layer1", "layer2", "layer3", "layer4")


class Arch:
    """A network: what it eats and the names of its layers, in order."""

    def __init__(self, kind: Kind, layers: tuple[str, ...], embedding: str, about: str) -> None:
        self.kind: Kind = kind
        self.layers = layers
        self.embedding = embedding
        self.about = about


ARCHS: dict[str, Arch] = {
    "c3d": Arch("video", _CONV_FC, "conv5", "C3D, five convolutions (thesis, section 5.3)"),
    "r3d": Arch("video", _RESIDUAL, "layer4", "2D3D-ResNet-18 of the thesis"),
    "r2plus1d": Arch("video", _RESIDUAL, "layer4", "R(2+1)D-18 of the thesis"),
    "r3d_18": Arch("video", _RESIDUAL, "layer4", "torchvision's R3D-18"),
    "mc3_18": Arch("video", _RESIDUAL, "layer4", "torchvision's MC3-18"),
    "r2plus1d_18": Arch("video", _RESIDUAL, "layer4", "torchvision's R(2+1)D-18"),
    "alexnet": Arch("image", _CONV_FC, "conv5", "AlexNet with batch norm (thesis, section 4.4)"),
    "alexnet_lrn": Arch(
        "image",
        _CONV_FC[:6],
        "conv5",
        "AlexNet with response normalisation (thesis, section 3.3.4)",
    ),
    "resnet18": Arch("image", _RESIDUAL, "layer4", "torchvision's ResNet-18"),
    "resnet34": Arch("image", _RESIDUAL, "layer4", "torchvision's ResNet-34"),
    "resnet50": Arch("image", _RESIDUAL, "layer4", "torchvision's ResNet-50"),
    "cifarnet": Arch(
        "image",
        ("conv1", "conv2", "fc1", "fc2"),
        "conv2",
        "CifarNet, two convolutions without batch norm (thesis, section 8.4)",
    ),
    "inception_small": Arch(
        "image",
        ("conv1", "stage1", "stage2", "stage3"),
        "stage3",
        "small Inception for images of 32 pixels (thesis, section 8.4)",
    ),
    "preact_resnet18": Arch(
        "image", _RESIDUAL, "layer4", "PreAct-ResNet-18 for images of 32 pixels (table 8.3)"
    ),
    "dcgan": Arch("image", _CONV_FC[:5], "conv5", "discriminator of GANs (thesis, table 7.2)"),
    "sngan": Arch(
        "image",
        tuple(f"conv{i}" for i in range(1, 10)),
        "conv9",
        "discriminator with two convolutions at each scale (thesis, table 7.3)",
    ),
}

# Those whose first convolution and poolings are padded or not, as is asked for.
PADDED = ("alexnet", "alexnet_lrn")

# Those that other libraries train on ImageNet, whose colours they expect; timm's are others.
IMAGENET_ARCHS = ("resnet18", "resnet34", "resnet50")

# The sides in pixels for which there are generators, and that of the smallest map of each.
GAN_SIZES = {32: 4, 64: 4, 96: 6, 128: 4}

# What goes before the name of any of timm's networks.
TIMM = "timm/"


def archs(kind: Kind) -> list[str]:
    """The names of the networks that take images, or videos; any of timm's is not among them."""
    return [name for name, arch in ARCHS.items() if arch.kind == kind]


def datasets(kind: Medium) -> list[str]:
    """The names of the registered datasets of images, of videos, or of synchronised views."""
    return [name for name, dataset in DATASETS.items() if dataset.kind == kind]


def find_arch(name: str) -> Arch | None:
    """The network of that name. Of timm's it is only said that they take images: whether there is
    one of that name, and what its layers are called, is asked where it is built."""
    plain = name.removeprefix(TIMM).replace("_", "")
    if name.startswith(TIMM) and plain.isascii() and plain.isalnum():
        return Arch("image", (), "", "one of timm's")
    return ARCHS.get(name)


def unfit_arch(name: str, kind: Kind) -> str | None:
    """What is wrong with a network where `kind` is needed, in one sentence; None if it fits."""
    known = archs(kind)
    shown = ", ".join(known) + (f" and any of timm's as {TIMM}NAME" if kind == "image" else "")
    arch = find_arch(name)
    if arch is None:
        return f"unknown network '{name}'{nearest(name, known)}; known are {shown}"
    if arch.kind != kind:
        return f"{name} takes {arch.kind}s, not {kind}s; networks for {kind}s are {shown}"
    return None


class Dataset:
    """A registered dataset and how it must lie on disk (empty: built in)."""

    def __init__(self, kind: Medium, about: str, layout: str = "") -> None:
        self.kind: Medium = kind
        self.about = about
        self.layout = layout


DATASETS: dict[str, Dataset] = {
    "motion": Dataset("video", "built-in: moving objects, the class is the law of motion"),
    "ucf101": Dataset(
        "video",
        "UCF101 action recognition",
        "CLASS/v_CLASS_gXX_cYY.avi, with classInd.txt, trainlist0N.txt and testlist0N.txt "
        "in the folder itself or in ucfTrainTestlist/",
    ),
    "hmdb51": Dataset(
        "video",
        "HMDB51 action recognition",
        "CLASS/*.avi, with CLASS_test_splitN.txt in the folder itself or in "
        "testTrainMulti_7030_splits/",
    ),
    "kinetics": Dataset(
        "video",
        "Kinetics-400, -600 or -700",
        "train.csv, val.csv (or validate.csv) and optionally test.csv with the columns label, "
        "youtube_id, time_start, time_end, and the clips train/[LABEL/]ID_000010_000020.mp4, val/…",
    ),
    "scenes": Dataset("image", "built-in: objects whose class is how their parts are arranged"),
    "facelike": Dataset("image", "built-in: aligned faces that are lit from one side, attributes"),
    "figures": Dataset("view", "built-in: people seen by four cameras at once, for multiview"),
    "human36m": Dataset(
        "view",
        "Human3.6M: seven people, four cameras, 17 joints",
        "S1/… to S11/… as h36m-fetch, mmpose or its authors' archives leave them",
    ),
    "mpi_inf_3dhp": Dataset(
        "view",
        "MPI-INF-3DHP: eight people, up to fourteen cameras",
        "S1/Seq1/imageSequence/video_0.avi … with annot.mat and camera.calibration",
    ),
    "ring": Dataset("point", "built-in: points of Gaussians on a circle, for dfgan"),
    "cifar10": Dataset(
        "image",
        "CIFAR-10: 32×32 pixels, 10 classes",
        "cifar-10-batches-bin/ or cifar-10-batches-py/, or their files, or train/CLASS/*.png and "
        "test/CLASS/*.png",
    ),
    "cifar100": Dataset(
        "image",
        "CIFAR-100: 32×32 pixels, 100 classes",
        "cifar-100-binary/ or cifar-100-python/, or their files, or train/CLASS/*.png and "
        "test/CLASS/*.png",
    ),
    "stl10": Dataset(
        "image",
        "STL-10: 96×96 pixels, 10 classes, 100,000 images without labels",
        "stl10_binary/ with train_X.bin, train_y.bin, test_X.bin, test_y.bin, unlabeled_X.bin, "
        "class_names.txt and fold_indices.txt, or these files",
    ),
    "imagenet": Dataset(
        "image",
        "ImageNet (ILSVRC 2012): 1,000 classes",
        "train/WNID/*.JPEG and val/WNID/*.JPEG, in the folder itself or in ILSVRC/Data/CLS-LOC/",
    ),
    "places": Dataset(
        "image",
        "Places205 or Places365: scenes",
        "places365_train_standard.txt, places365_val.txt, categories_places365.txt, and the images "
        "in data_256_standard/ and val_256/ (or data_large_standard/ and val_large/); or "
        "train_places205.csv, val_places205.csv and images256/; or train/CLASS/*.jpg and "
        "val/CLASS/*.jpg",
    ),
    "celeba": Dataset(
        "image",
        "CelebA: aligned faces, 40 attributes",
        "img_align_celeba/*.jpg, list_attr_celeba.txt and list_eval_partition.txt (or .csv), in "
        "the folder itself or in celeba/",
    ),
    "clothing1m": Dataset(
        "image",
        "Clothing1M: 14 classes of clothes, labels of which many are wrong",
        "images/, noisy_train_key_list.txt, noisy_label_kv.txt, clean_train_key_list.txt, "
        "clean_test_key_list.txt, clean_label_kv.txt and category_names_eng.txt",
    ),
    "voc2007": Dataset(
        "image",
        "PASCAL VOC 2007: 20 classes, several an image",
        "VOCdevkit/VOC2007/ or, in the folder itself, JPEGImages/*.jpg, Annotations/*.xml, "
        "ImageSets/Main/trainval.txt and ImageSets/Main/test.txt",
    ),
    "voc2012": Dataset(
        "image",
        "PASCAL VOC 2012: 20 classes, several an image",
        "VOCdevkit/VOC2012/ or, in the folder itself, JPEGImages/*.jpg, Annotations/*.xml, "
        "ImageSets/Main/train.txt and ImageSets/Main/val.txt",
    ),
    "lsun": Dataset(
        "image",
        "LSUN: scenes, one LMDB a category",
        "CATEGORY_train_lmdb/data.mdb and CATEGORY_val_lmdb/data.mdb, of as many categories as "
        "are to be used",
    ),
}


class Method:
    """A method of pretraining: its chapter, and the module under `selfsup_cli.methods`."""

    def __init__(self, chapter: int, about: str, kind: Kind = "video") -> None:
        self.chapter = chapter
        self.about = about
        self.kind: Kind = kind


METHODS: dict[str, Method] = {
    "temporal": Method(5, "video: recognise speed, random, periodic and warped time"),
    "shuffle-learn": Method(5, "video, a control: tell shuffled frames from ordered ones"),
    "rotnet3d": Method(5, "video, a control: recognise quarter turns of a clip"),
    "supervised": Method(5, "video, a control: learn from the action labels"),
    "artifacts": Method(3, "images: spot what a network damaged and another one repaired", "image"),
    "transformations": Method(
        4, "images: recognise patches that were inpainted, warps and quarter turns", "image"
    ),
    "multiview": Method(
        6, "synchronised cameras: recognise views of one moment, and mirrored ones", "image"
    ),
    "dfgan": Method(
        7, "images: generate them, by a GAN that sees all with learned noise as well", "image"
    ),
    "bilevel": Method(
        8, "images: classify them by few or wrong labels, mini-batches weighted", "image"
    ),
}


class Transformation:
    """A transformation of images that a classifier recognises; its function has the same name in
    `selfsup_cli.transforms.pretext`.

    It is done to the canvas, before the augmentation that all images go through, or after it to the
    crop. Those that `inpaint` need the inpainter.
    """

    def __init__(
        self, at: Literal["canvas", "crop"], about: str, *, inpaints: bool = False
    ) -> None:
        self.at: Literal["canvas", "crop"] = at
        self.about = about
        self.inpaints = inpaints


TRANSFORMS: dict[str, Transformation] = {
    "identity": Transformation("crop", "the image as it is"),
    "rotate90": Transformation("crop", "a quarter turn counter-clockwise"),
    "rotate180": Transformation("crop", "a half turn"),
    "rotate270": Transformation("crop", "a quarter turn clockwise"),
    "warp": Transformation("canvas", "a smooth random deformation"),
    "lci": Transformation("canvas", "limited-context inpainting of a patch", inpaints=True),
    "autoencode": Transformation("canvas", "a patch autoencoded by the inpainter", inpaints=True),
    "mirror": Transformation("crop", "left and right exchanged"),
    "flip": Transformation("crop", "top and bottom exchanged"),
    "tiles": Transformation("canvas", "tiles in random order"),
}

TASKS: dict[str, str] = {
    "action": "video: recognise actions, fine-tuned or on frozen layers",
    "sync": "video: by how many frames is one of two clips behind the other?",
    "order": "video: which half of a clip comes first?",
    "classify": "images: recognise classes or attributes, fine-tuned or on frozen layers",
    "segment": "images: which class each pixel is of",
    "detect": "images: find objects, Fast or Faster R-CNN",
    "pose": "images: where the joints of a person are in space",
}

# The jobs that presets describe, under the names of the folders they are filed in.
JOB_NAMES = (
    *(f"pretrain/{method}" for method in METHODS),
    *(f"transfer/{task}" for task in TASKS),
    "probe",
    "probe-images",
    "probe-tiles",
    "probe-sync",
    "retrieve",
    "retrieve-images",
    "retrieve-sync",
    "export/embeddings",
    "export/image-embeddings",
    "visualize/guided-backprop",
    "visualize/mean-image",
    "visualize/filters",
    "visualize/activations",
    "visualize/gradcam",
    "visualize/neighbours",
    "sample/transformations",
    "sample/artifacts",
    "sample/dfgan",
    "score",
    "shortcuts",
)

# A job on videos, and the one on images that has the same command.
PAIRS = {
    "probe": "probe-images",
    "retrieve": "retrieve-images",
    "export/embeddings": "export/image-embeddings",
}

# What may stand for a layer up to which a network stays as it is.
FREEZES = ("none", "conv")


def all_layers() -> list[str]:
    """The names of the layers of all networks."""
    return list(dict.fromkeys(layer for arch in ARCHS.values() for layer in arch.layers))


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """` (did you mean 'x'?)` for the nearest of `known`, or an empty string."""
    from difflib import get_close_matches

    folded = {one.casefold(): one for one in known}
    close = get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return f" (did you mean '{folded[close[0]]}'?)" if close else ""


def unknown(what: str, name: str, known: list[str] | tuple[str, ...]) -> InputError:
    """The error for a name that is not among `known`, with the nearest one."""
    name = name if len(name) <= 60 else f"{name[:59]}…"
    return InputError(
        f"unknown {what} '{name}'{nearest(name, known)}; known are: {', '.join(known)}",
        kind=f"unknown-{what}",
    )
