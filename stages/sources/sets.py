"""The sets of images: where their files are, what they are checked against, who is in which class.

Published sets are the entries of SETS; a set of one's own is what stages.collect wrote of a folder.
Every stage gets either by `find_set`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv, sha256

PICTURES = "pictures.csv"
"""What data/raw/NAME/ holds of a set of one's own in place of an archive."""
COLUMNS = ("image", "class", "part", "sha256", "archive")
"""Of that table, a row a picture in the set's order: path below data/own/NAME, class name, the part
it was given or nothing, digest of its bytes, and the tar it is in or nothing."""

BASE_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers"

FLOWERS17_NAMES = (
    "daffodil", "snowdrop", "lily of the valley", "bluebell", "crocus", "iris", "tiger lily",
    "tulip", "fritillary", "sunflower", "daisy", "coltsfoot", "dandelion", "cowslip", "buttercup",
    "windflower", "pansy",
)  # fmt: skip

# No official list exists. These are the names in common use, compiled by others by eye.
OXFORD102_NAMES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea",
    "english marigold", "tiger lily", "moon orchid", "bird of paradise", "monkshood",
    "globe thistle", "snapdragon", "colt's foot", "king protea", "spear thistle", "yellow iris",
    "globe flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger",
    "grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke",
    "sweet william", "carnation", "garden phlox", "love in the mist", "mexican aster",
    "alpine sea holly", "ruby-lipped cattleya", "cape flower", "great masterwort", "siam tulip",
    "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia", "bolero deep blue",
    "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura",
    "geranium", "orange dahlia", "pink-yellow dahlia", "cautleya spicata", "japanese anemone",
    "black-eyed susan", "silverbush", "californian poppy", "osteospermum", "spring crocus",
    "bearded iris", "windflower", "tree poppy", "gazania", "azalea", "water lily", "rose",
    "thorn apple", "morning glory", "passion flower", "lotus", "toad lily", "anthurium",
    "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove",
    "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower",
    "trumpet creeper", "blackberry lily",
)  # fmt: skip

DEMO_NAMES = (
    "amber wheel", "blue lantern", "candle lily", "copper bell", "crimson star", "dusk daisy",
    "frost rose", "golden fan", "ivory cup", "lemon spark", "mauve comet", "night poppy",
    "pearl aster", "rust dahlia", "sky trumpet", "twin heart", "violet ruff",
)  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A published file: its name, its folder's address, and what it must match."""

    name: str
    folder: str
    algorithm: str
    """Of the published digest: `md5` or `sha256`."""
    digest: str
    size: int | None = None
    """In bytes, where it is published."""
    optional: bool = False
    """Whether a run goes on without it."""

    @property
    def url(self) -> str:
        """Where the file is published."""
        return f"{BASE_URL}/{self.folder}/{self.name}"


@dataclass(frozen=True)
class ImageSet:
    """A set of labelled images in one archive, or listed in PICTURES."""

    name: str
    archive: str
    files: tuple[SourceFile, ...]
    """Every file to download, the archive first; none for the set that this project draws."""
    image_pattern: str
    """Name of image number n, counted from 1, inside the archive."""
    images: int
    class_names: tuple[str, ...]
    label_file: str | None = None
    """A .mat file with a row `labels`, counted from 1; without it the classes follow each other."""
    official_file: str | None = None
    """A .mat file with the published parts."""
    ordered_train: int | None = None
    """How many images of each class, in file order, the `ordered` protocol trains on."""
    listed: tuple[Mapping[str, str], ...] = ()
    """Rows of PICTURES, of a set of one's own; else empty."""

    @property
    def image_names(self) -> list[str]:
        """Names of all images inside the archive, in the set's order."""
        if self.listed:
            return [row["image"] for row in self.listed]
        return [self.image_pattern.format(number) for number in range(1, self.images + 1)]


SETS = {
    each.name: each
    for each in (
        ImageSet(
            name="flowers17",
            archive="17flowers.tgz",
            files=(
                SourceFile("17flowers.tgz", "17", "md5", "b59a65d8d1a99cd66944d474e1289eab"),
                SourceFile(
                    "datasplits.mat", "17", "md5", "4828cddfd0d803c5abbdebcb1e148a1e", optional=True
                ),
            ),
            image_pattern="jpg/image_{:04d}.jpg",
            images=1360,
            class_names=FLOWERS17_NAMES,
            official_file="datasplits.mat",
            ordered_train=65,
        ),
        ImageSet(
            name="oxford102",
            archive="102flowers.tgz",
            files=(
                SourceFile(
                    "102flowers.tgz",
                    "102",
                    "sha256",
                    "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                    344_862_509,
                ),
                SourceFile(
                    "imagelabels.mat", "102", "md5", "e0620be6f572b9609742df49c70aed4d", 502
                ),
                SourceFile("setid.mat", "102", "md5", "a5357ecc9cb78c4bef273ce3793fc85c", 14_989),
            ),
            image_pattern="jpg/image_{:05d}.jpg",
            images=8189,
            class_names=OXFORD102_NAMES,
            label_file="imagelabels.mat",
            official_file="setid.mat",
        ),
        ImageSet(
            name="demo",
            archive="demo.tgz",
            files=(),
            image_pattern="jpg/image_{:04d}.jpg",
            images=1360,
            class_names=DEMO_NAMES,
            label_file="imagelabels.mat",
        ),
    )
}


def find_set(name: str, root: Path = Path()) -> ImageSet:
    """The set called `name`: a published one, or one's own as collected below the folder `root`.

    Raises UserError where there is none.
    """
    if name in SETS:
        return SETS[name]
    path = root / "data/raw" / name / PICTURES
    if not path.is_file():
        raise UserError(
            f"no set {name!r}; there are: {', '.join(SETS)}, and your own: "
            "pictures in data/own/NAME, and NAME in params.yaml's list `own`"
        )
    rows = tuple(read_csv(path))
    classes = tuple(sorted({row["class"] for row in rows}))
    return ImageSet(name, PICTURES, (), "", len(rows), classes, listed=rows)


def picture_keys(image_set: ImageSet, raw: Path) -> list[str]:
    """What tells the bytes of each image of the set from all others, in its order.

    The image's digest, or that of its archive and its name there. `raw` is the folder of the set's
    files.
    """
    if image_set.listed:
        return [row["sha256"] for row in image_set.listed]
    archive = sha256(raw / image_set.archive)
    return [f"{archive} {name}" for name in image_set.image_names]


def read_mat(path: Path, key: str) -> NDArray[np.int64]:
    """Variable `key` of a MATLAB file, flattened, as whole numbers.

    Raises UserError when the file is missing, unreadable, or lacks the variable, and where that
    holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing; get it by `dvc repro --force download`, with a network or with "
            "FLOWERS_MIRROR naming a folder that holds it"
        )
    try:
        values = np.asarray(scipy.io.loadmat(path)[key]).ravel()
        if values.dtype.kind not in "iuf" or not (values % 1 == 0).all():
            raise ValueError("not whole numbers")
        return values.astype(np.int64)
    except NotImplementedError:  # SciPy's, for files that are HDF5 inside.
        raise UserError(
            f"{path} is a MATLAB file of version 7.3, which is not read; save it by `save -v7`"
        ) from None
    except Exception as error:  # noqa: BLE001  SciPy raises whatever it stumbles on in a broken file.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} holds no usable variable {key!r} ({reason}); download it again"
        ) from None


def read_labels(image_set: ImageSet, raw: Path) -> NDArray[np.int64]:
    """Label of every image of the set, in its order, from 0.

    `raw` is the folder of the set's downloaded files. Raises UserError when the label file does not
    fit the set: another count, or labels out of range.
    """
    classes = len(image_set.class_names)
    if image_set.listed:
        numbers = {name: number for number, name in enumerate(image_set.class_names)}
        return np.array([numbers[row["class"]] for row in image_set.listed])
    if image_set.label_file is None:
        return np.arange(image_set.images) // (image_set.images // classes)
    path = raw / image_set.label_file
    labels = read_mat(path, "labels") - 1
    if len(labels) != image_set.images:
        raise UserError(
            f"{path} has {len(labels)} labels for {image_set.images} images; download it again"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"{path} has labels from {labels.min() + 1} to {labels.max() + 1}, "
            f"not 1 to {classes}; download it again"
        )
    return labels
