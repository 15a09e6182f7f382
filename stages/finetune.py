"""Fine-tune the upper layers of a backbone together with its trained head.

    python -m stages.finetune --set flowers17 --backbone vgg19 --seed 42 --unfreeze auto ...

Starts from the trained head and trains on what the prefix stage cached. Writes the classifier as
`models/SET/BACKBONE/finetuned.keras`, its history, and the probabilities of every image in every
repeat. With zero epochs, or with nothing unfrozen, the head's model and probabilities are passed on
as they are.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from stages.common.arrays import read_array
from stages.common.command_line import Parser, number, run
from stages.common.files import replacing
from stages.training.history import HISTORY_COLUMNS, history_path, write_history


def pass_through(models: Path, history: Path) -> None:
    """Hand the head's model and probabilities on as the fine-tuned ones, with an empty history."""
    for name in ("{}.keras", "{}_probabilities.npy"):
        with replacing(models / name.format("finetuned")) as temporary:
            shutil.copyfile(models / name.format("head"), temporary)
    write_history(history, {column: [] for column in HISTORY_COLUMNS})


def main(arguments: Sequence[str]) -> None:
    """Fine-tune if there is anything to train, else pass the head on."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--epochs", type=number(int, 0, 100_000), required=True)
    options, _ = parser.parse_known_args(arguments)
    prefix = Path(f"data/prefix/{options.set}/{options.backbone}.npy")
    if options.epochs == 0 or (prefix.exists() and read_array(prefix, "r").size == 0):
        models = Path("models", options.set, options.backbone)
        pass_through(models, history_path(options.set, options.backbone, "finetuned"))
        return
    # Here, as TensorFlow takes seconds to load.
    from stages.training.finetuning import fine_tune

    fine_tune(arguments)


if __name__ == "__main__":
    run(main)
