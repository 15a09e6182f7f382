"""Get the whole network of a backbone as it is published, with its classifier for ImageNet.

    python -m stages.imagenet --backbone vgg19 --weights imagenet --classifier

Writes the folder `data/imagenet/BACKBONE`: facts.json, and where there is such a classifier and it
is wanted its weights, which are a download of their own, and ImageNet's class names. When they
cannot be had the stage ends with an error, so that the next run tries again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, UserError, run
from stages.common.files import replacing, write_json
from stages.networks.options import add_backbone_option, add_weights_option
from stages.networks.registry import find_backbone

LACKING = {
    "random": "its weights are random",
    "unpublished": "it is not published with a classifier",
    "unwanted": "params.yaml has inspect.classifier: false",
}
"""Why there is no classifier."""


def why_not(backbone: str, weights: str, classifier: bool) -> str:
    """A key of LACKING, or an empty text where the classifier is to be had."""
    if weights == "random":
        return "random"
    if find_backbone(backbone).library != "keras":
        return "unpublished"
    return "" if classifier else "unwanted"


def get_classifier(backbone: str, folder: Path) -> dict[str, Any]:
    """Write the network's weights into `folder`; return what facts.json is to hold.

    Raises UserError where weights or class names can be had neither from the mirror nor from the
    network.
    """
    # Here, as TensorFlow takes seconds to load.
    from stages.networks.imagenet import class_names, download_imagenet_network
    from stages.networks.model_files import weights_file

    try:
        network, names = download_imagenet_network(backbone), class_names()
    except UserError as error:
        raise UserError(
            f"{error}; to go on without what {backbone} calls pictures untouched, set "
            "inspect.classifier to false in params.yaml"
        ) from None
    (folder / "classifier.weights.h5").write_bytes(weights_file(network))
    return {"lacking": "", "class_names": names}


def main(arguments: Sequence[str]) -> None:
    """Parse the options, get the classifier where there is one, and write it."""
    parser = Parser(__doc__)
    add_backbone_option(parser)
    add_weights_option(parser)
    parser.add_argument("--classifier", action="store_true")
    options = parser.parse_args(arguments)
    reason = why_not(options.backbone, options.weights, options.classifier)
    with replacing(Path("data/imagenet", options.backbone)) as folder:
        folder.mkdir()
        facts = {"lacking": LACKING[reason]} if reason else get_classifier(options.backbone, folder)
        write_json(folder / "facts.json", facts)
    print(f"{options.backbone} with ImageNet's classifier: {facts['lacking'] or 'is here'}")


if __name__ == "__main__":
    run(main)
