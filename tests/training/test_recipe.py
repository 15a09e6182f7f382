import subprocess
import sys

import pytest

from stages.common.command_line import Parser, UserError
from stages.training.recipe import Recipe, add_training_options, take_recipe
from tests.tiny_set import ROOT


def parser() -> Parser:
    taken = Parser(None)
    add_training_options(taken, "head", min_epochs=1)
    return taken


WORDS = (
    "--seed 1 --refit true --optimizer sgd --learning_rate 0.5 --schedule cosine --epochs 3 "
    "--batch_size 8 --weight_decay 0.01 --label_smoothing 0.2"
)


def test_options_make_the_recipe() -> None:
    options = vars(parser().parse_args(WORDS.split()))
    wanted = Recipe("sgd", 0.5, "cosine", 3, 8, 0, 0.01, 0.2)
    assert take_recipe(options) == wanted
    # What is of no training's is left.
    assert options == {"seed": 1, "refit": True}


def test_options_of_fine_tuning_alone_come_into_the_recipe_too() -> None:
    taken = parser()
    names = ("warmup", "lowest_rate", "slices")
    for name in names:
        taken.add_argument(f"--{name}", type=float)
    words = [f"--{name}={number}" for number, name in enumerate(names, 1)]
    found = take_recipe(vars(taken.parse_args([*WORDS.split(), *words])))
    assert [getattr(found, name) for name in names] == [1, 2, 3]


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("seed", "-1", "from 0 to"),
        ("refit", "yes", "no refit 'yes'; there are: true, false"),
        ("optimizer", "lion", "no head.optimizer 'lion'; there are: adam, adamax, adamw, sgd"),
        ("learning_rate", "0", "above 0 to 10"),
        ("schedule", "step", "no head.schedule 'step'"),
        ("epochs", "0", "from 1 to"),
        ("batch_size", "0.5", "a whole number"),
        ("weight_decay", "-0.1", "from 0 to 10"),
        ("label_smoothing", "1", "from 0 to 0.9"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parser().parse_args([f"--{option}={value}"])


def test_options_are_read_without_tensorflow() -> None:
    """It takes seconds to load; a wrong option is told before."""
    code = "import sys, stages.head, stages.finetune; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
