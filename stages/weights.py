"""Get a backbone's weights: Keras's own, KerasHub's, the mirror's, or random ones.

    python -m stages.weights --backbone vgg19 --weights imagenet --seed 42

Writes `data/weights/BACKBONE.weights.h5` and, beside it, where they came from and under what terms.
"""

from collections.abc import Sequence
from pathlib import Path

from stages.common.command_line import Parser, any_seed, run
from stages.common.files import replacing, write_json
from stages.common.progress import say
from stages.networks.options import add_backbone_option, add_weights_option


def main(arguments: Sequence[str]) -> None:
    """Parse the options and write the weights and their source."""
    parser = Parser(__doc__)
    add_backbone_option(parser)
    add_weights_option(parser)
    parser.add_argument("--seed", type=any_seed, required=True)
    options = parser.parse_args(arguments)
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.networks.model_files import weights_file
    from stages.networks.pretrained import get_weights

    say(f"building {options.backbone}")
    backbone, source = get_weights(options.backbone, options.weights, options.seed)
    print(f"{options.backbone}: {source['source']} weights")
    path = Path(f"data/weights/{options.backbone}.weights.h5")
    content = weights_file(backbone)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    write_json(path.with_name(f"{options.backbone}.json"), source)


if __name__ == "__main__":
    run(main)
