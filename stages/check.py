"""Check that every set and every backbone that params.yaml lists is there, before all else.

    python -m stages.check

Writes data/checked.txt, which is always the same, so that a change of the lists reruns nothing
but what it must.
"""

from collections.abc import Sequence
from pathlib import Path

from stages.common.command_line import Parser, run
from stages.common.files import replacing
from stages.common.parameters import names, read_yaml
from stages.networks.registry import find_backbone
from stages.sources.sets import check_set

PARAMS = Path("params.yaml")


def main(arguments: Sequence[str]) -> None:
    """Read the lists and look for each name."""
    Parser(__doc__).parse_args(arguments)
    params = read_yaml(PARAMS)
    for name in names(params, "sets", PARAMS):
        check_set(name)
    for name in names(params, "backbones", PARAMS):
        find_backbone(name)
    with replacing(Path("data/checked.txt")) as temporary:
        temporary.write_text("the sets and backbones of params.yaml are there\n")


if __name__ == "__main__":
    run(main)
