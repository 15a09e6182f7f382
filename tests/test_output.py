"""What the stages print, to the file descriptors and so by TensorFlow's C++ part too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_set import ROOT

RUN = """
import sys
from pathlib import Path
from tests.tiny_set import Stages

stages = Stages(Path(sys.argv[1]))
stages.run_all()
stages.run_survey()
stages.run_inspect()
stages.run_explain()
stages.run_head(kind="logistic", hidden=[])
"""
SAID = [
    "starting TensorFlow",
    "building demo_backbone( with its head)?",
    "loading models/tiny/demo_backbone/(finetuned.keras|head.keras, and building .* to train)",
    "looking for what speaks for the (prediction|truth)",
    "demo_backbone: random weights",
    r"tiny: \d+ images in \d+ groups; \d+ pairs are exact, \d+ of two classes",
    r"tiny: \d+ images, 0 unreadable",
    r"tiny, stratified: \d+ train, \d+ val; moved to their duplicates: \d+",
    r"2 views, 32 px, float32(; a map of \(.*\) of each, as float32)?",
    "demo_backbone with ImageNet's classifier: its weights are random",
    r"\d+ images are known, \d+ are new",
    r"12 pictures; .*|\d+ pictures; ImageNet's classifier: .*",
    r"epoch \d+/\d+: accuracy \S+, loss \S+, val_accuracy \S+, val_loss \S+; \S+, \S+ left",
    r"strength \S+, \d of 5: fitting \d+ rows of 256 features, 3 classes",
    r"strength 0.*, 1 of 1: fitting .*",
    r"strength 1, 1 of 1: fitting .*",
    r"\d+ steps in \S+ s",
    r"strength \S+: loss \S+ on \d+ images held out",
    r"tiny-demo_backbone (head|finetuned), \d+ images of val: accuracy .*",
    r"tiny-demo_backbone: \d+ pictures",
    r"temperature .*",
]
BARS = (
    "measuring pictures", "comparing pictures", "reading pictures", "running the network",
    "training", "predicting", r"strength \S+",
)  # fmt: skip
BAR = rf"(({'|'.join(BARS)}): +)? *\d+%\|.{{10}}\| .*\[.*\]"


@pytest.mark.slow
def test_stages_print_what_they_do_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DVC_STAGE": "all"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    known = re.compile("|".join([*SAID, BAR]))
    assert [line for line in lines if not known.fullmatch(line)] == []
    assert lines.count("starting TensorFlow") == 1
    unsaid = [each for each in [*SAID, BAR] if not any(re.fullmatch(each, line) for line in lines)]
    assert len(unsaid) <= 2, unsaid  # Of three lines on one strength one is said.
