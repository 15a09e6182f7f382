"""Every parameter out of range, of a wrong type, and misspelt, on the command lines of dvc.yaml."""

import importlib
import math
import re
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from stages import report
from stages.common.command_line import Parser, UserError
from tests.tiny_set import ROOT, default_parameters, words_of

DEFAULTS = default_parameters()
STAGES = {
    name: stage["cmd"]
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"].items()
}
ITEM = {"set": "flowers17", "backbone": "vgg19"}
EXAMPLES = settings(
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Of each parameter."""

NUMBERS: dict[str, tuple[type, float, float]] = {
    "dropout": (float, 0, 0.95),
    "seed": (int, 0, 2**32 - 1),
    "duplicates.distance": (int, 0, 16),
    "split.fraction": (float, 0.01, 0.99),
    "split.seed": (int, 0, 2**32 - 1),
    "split.fold": (int, 1, 3),
    "features.image_size": (int, 32, 1024),
    "head.hidden": (int, 1, 65536),
    "head.strengths": (float, math.nextafter(0, 1), 1e9),
    "head.learning_rate": (float, math.nextafter(0, 1), 10),
    "head.epochs": (int, 0, 100_000),
    "head.batch_size": (int, 1, 65536),
    "head.weight_decay": (float, 0, 10),
    "head.label_smoothing": (float, 0, 0.9),
    "finetune.batch_norm_momentum": (float, 0, 1),
    "finetune.learning_rate": (float, math.nextafter(0, 1), 10),
    "finetune.lowest_rate": (float, math.nextafter(0, 1), 1),
    "finetune.warmup": (float, 0, 1),
    "finetune.epochs": (int, 0, 100_000),
    "finetune.slices": (int, 1, 10_000),
    "finetune.batch_size": (int, 1, 65536),
    "finetune.color_jitter": (float, 0, 0.9),
    "finetune.weight_decay": (float, 0, 10),
    "finetune.label_smoothing": (float, 0, 0.9),
}
"""As params.yaml states their ranges: kind, smallest and largest."""
CHOICES = {
    "refit": ["true", "false"],
    "weights": ["imagenet", "random"],
    "unreadable": ["stop", "skip"],
    "engine": ["local", "ray"],
    "split.protocol": ["stratified", "official", "ordered"],
    "features.crop": ["center", "none"],
    "features.pooling": ["avg", "max"],
    "features.views": ["plain", "mirror", "zoom", "bottom_right_mirror"],
    "features.precision": ["auto", "float32", "bfloat16"],
    "head.kind": ["logistic", "mlp"],
    "head.normalize": ["none", "standard", "power"],
    "head.optimizer": ["adam", "adamax", "adamw", "sgd"],
    "head.schedule": ["constant", "cosine"],
    "finetune.batch_norm": ["frozen", "train"],
    "finetune.augment": ["none", "crop"],
    "finetune.precision": ["auto", "float32", "bfloat16"],
    "finetune.optimizer": ["adam", "adamax", "adamw", "sgd"],
    "finetune.schedule": ["constant", "cosine"],
}
LISTED = ("head.hidden", "head.strengths")
"""Of NUMBERS, those that are a list of them."""
FLAGS = [
    "split.group_duplicates", "inspect.classifier", "predict.average_views", "predict.calibrate",
]  # fmt: skip
LISTS = ["sets", "backbones"]
"""What the graph is made of: their names go to `--set` and `--backbone`."""
BY_THE_NETWORK = ["finetune.unfreeze"]
"""Looked at when the network is there: tests/networks/test_backbones.py."""

Parameters = dict[str, Any]


class ParsedError(Exception):
    """Carries what a stage's parser made of its command line, and ends the stage."""


@pytest.fixture(autouse=True)
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not always installed."""
    monkeypatch.setattr("stages.extraction.options.find_spec", lambda name: name)


def changed(name: str, value: Any) -> Parameters:
    """The default parameters with another value."""
    parameters = deepcopy(DEFAULTS)
    section, _, key = name.rpartition(".")
    (parameters[section] if section else parameters)[key] = value
    return parameters


def parse(stage: str, parameters: Parameters) -> Namespace:
    """What a stage's parser makes of its command line; raises UserError as the stage does."""

    def parse_and_end(self: Parser, words: list[str]) -> NoReturn:
        raise ParsedError(original(self, words))

    original = Parser.parse_args
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", parse_and_end)
        try:
            importlib.import_module(f"stages.{stage}").main(
                words_of(STAGES[stage], parameters, ITEM)
            )
        except ParsedError as parsed:
            return parsed.args[0]  # type: ignore[no-any-return]
    raise AssertionError(stage)


def stages_with(name: str) -> list[str]:
    """The stages whose command line holds a parameter."""
    section = name.partition(".")[0]
    return [
        stage
        for stage, command in STAGES.items()
        if {f"${{{name}}}", f"${{{section}}}"} & set(command.split())
    ]


def refusals(name: str, value: Any) -> list[str]:
    """The errors of the stages that refuse a value."""
    errors = []
    for stage in stages_with(name):
        try:
            parse(stage, changed(name, value))
        except UserError as error:
            errors.append(str(error))
    assert all(len(error.splitlines()) == 1 for error in errors)
    assert all(error.endswith(" (the values come from params.yaml)") for error in errors)
    return errors


def outside(name: str) -> SearchStrategy[Any]:
    """Numbers that a parameter cannot be."""
    kind, low, high = NUMBERS[name]
    numbers: SearchStrategy[Any] = st.floats().filter(lambda value: not low <= value <= high)
    if kind is int:
        numbers |= st.integers().filter(lambda value: not low <= value <= high)
        numbers |= st.floats(low, min(high, 1e6), allow_nan=False)
    return numbers.map(lambda value: [value]) if name in LISTED else numbers


def inside(name: str) -> SearchStrategy[Any]:
    """Values that a parameter can be."""
    if name in CHOICES:
        values: SearchStrategy[Any] = st.sampled_from(CHOICES[name])
        return st.lists(values, min_size=1) if name == "features.views" else values
    if name in FLAGS:
        return st.booleans()
    kind, low, high = NUMBERS[name]
    most = None if high == math.inf else high
    numbers: SearchStrategy[Any]
    numbers = st.integers(int(low), most) if kind is int else st.floats(low, most)  # type: ignore[arg-type]
    return st.lists(numbers, min_size=1) if name in LISTED else numbers


def test_every_parameter_is_tried() -> None:
    named = [
        f"{section}.{name}" if isinstance(values, dict) else section
        for section, values in default_parameters().items()
        for name in (values if isinstance(values, dict) else [section])
    ]
    tried = [*NUMBERS, *CHOICES, *FLAGS, *LISTS, *BY_THE_NETWORK]
    assert sorted(tried) == sorted(named)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NUMBERS, *CHOICES, *FLAGS])
def test_the_default_and_all_that_is_allowed_is_taken(name: str) -> None:
    @EXAMPLES
    @given(inside(name))
    def check(value: Any) -> None:
        assert refusals(name, value) == []

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_one_line_that_names_parameter_and_value(name: str) -> None:
    @EXAMPLES
    @given(outside(name))
    def check(value: Any) -> None:
        shown = value[0] if isinstance(value, list) else value
        errors = refusals(name, value)
        assert errors
        for error in errors:
            # argparse takes -1e+300 for an option that it does not know.
            assert re.match(rf"argument --(finetune_)?{name.rpartition('.')[2]}: ", error) or (
                error.startswith(f"unrecognized arguments: {shown} ")
            )
            assert str(shown) in error or re.search("expected .* argument", error)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NUMBERS, *CHOICES])
def test_a_wrong_type_is_one_line_that_names_the_parameter(name: str) -> None:
    words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1)
    kinds = words | st.dates().map(str) | st.just(None) | st.booleans()
    allowed = {*CHOICES.get(name, []), *(["native", "larger"] if name.endswith("_size") else [])}

    @EXAMPLES
    @given(kinds.filter(lambda value: str(value).lower() not in allowed))
    def check(value: Any) -> None:
        # DVC leaves an option without a value out, as it does an empty list.
        assume(not (name == "head.hidden" and isinstance(value, bool)))
        errors = refusals(name, value)
        assert errors
        assert all(name.rpartition(".")[2] in error for error in errors)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAGS)
def test_what_is_neither_true_nor_false_is_one_line_that_names_the_value(name: str) -> None:
    @EXAMPLES
    @given(st.sampled_from(["yes", "no", "on", "True ", "maybe"]) | st.integers() | st.none())
    def check(value: Any) -> None:
        errors = refusals(name, value)
        assert errors
        assert all(str(value) in error for error in errors)

    check()


@st.composite
def misspelt(draw: st.DrawFn, name: str) -> str:
    """A name with a letter more, less, or in place of another, or two that changed places."""
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    ways = [
        name[:at] + letter + name[at:],
        name[:at] + name[at + 1 :],
        name[:at] + letter + name[at + 1 :],
        name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :],
    ]
    return draw(st.sampled_from(ways).filter(lambda way: way not in (name, "")))


@pytest.mark.slow
@pytest.mark.parametrize("besides", [True, False])
@pytest.mark.parametrize("name", [each for each in [*NUMBERS, *CHOICES, *FLAGS] if "." in each])
def test_a_misspelt_name_in_a_section_is_one_line(name: str, besides: bool) -> None:
    """Whether the right one stands there too or not."""
    section, key = name.split(".")

    @EXAMPLES
    @given(misspelt(key))
    def check(wrong: str) -> None:
        parameters = deepcopy(DEFAULTS)
        value = parameters[section][key]
        parameters[section][wrong] = True if value is False else [1] if value == [] else value
        if not besides:
            del parameters[section][key]
        # DVC itself refuses where `${section.key}` names what is not there.
        whole = [each for each in stages_with(name) if f"${{{section}}}" in STAGES[each].split()]
        for stage in whole:
            if not besides and f"${{{name}}}" in STAGES[stage]:
                continue
            with pytest.raises(UserError) as caught:
                parse(stage, parameters)
            assert wrong in str(caught.value) or key in str(caught.value)
        assert whole

    check()


@pytest.mark.parametrize(
    ("section", "name"), [("head", "dropout"), ("head", "seed"), ("split", "set"),
                          ("finetune", "refit"), ("features", "set"), ("duplicates", "set")],
)  # fmt: skip
def test_a_name_in_the_wrong_section_overrides_nothing(section: str, name: str) -> None:
    parameters = deepcopy(DEFAULTS)
    parameters[section][name] = "true" if name == "refit" else "1"
    stage = next(each for each in stages_with(section) if f"${{{section}}}" in STAGES[each].split())
    with pytest.raises(UserError, match=f"^--{name} is given 2 times"):
        parse(stage, parameters)


def test_the_report_knows_every_parameter() -> None:
    assert set(report.PARAMETERS) == set(default_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", report.PARAMETERS)
def test_a_misspelt_name_outside_of_sections_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that stands there besides; DVC refuses where the right one is missing."""
    monkeypatch.chdir(tmp_path)

    @EXAMPLES
    @given(misspelt(name))
    def check(wrong: str) -> None:
        assume(wrong not in report.PARAMETERS)
        text = yaml.safe_dump(default_parameters() | {wrong: 1})
        (tmp_path / "params.yaml").write_text(text, "utf-8")
        with pytest.raises(UserError, match=rf"^params\.yaml has '{wrong}', which nothing reads"):
            report.main([])

    check()


def refusal_of_a_rose(stage: str, kind: str) -> str:
    """What a stage says where its set or backbone is called rose."""
    words = words_of(STAGES[stage], DEFAULTS, ITEM | {kind: "rose"})
    assert "rose" in words
    with pytest.raises(UserError) as caught:
        importlib.import_module(f"stages.{stage}").main(words)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("stage", [each for each in STAGES if "item.backbone" in STAGES[each]])
def test_an_unknown_backbone_is_one_line(stage: str) -> None:
    """`evaluate` only reads what other stages have written of one."""
    if stage != "evaluate":
        assert "no backbone 'rose'; there are: vgg16, " in refusal_of_a_rose(stage, "backbone")


def test_an_unknown_set_is_one_line_that_names_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("roses", "demo"):
        (tmp_path / "data/sets" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert refusal_of_a_rose("collect", "set") == (
        "sets: there is no folder data/sets/rose; there are: demo, roses; put "
        "pictures of your own into data/sets/NAME, a folder a class, and NAME into `sets` of "
        "params.yaml"
    )


@pytest.mark.parametrize("stage", ["survey", "duplicates", "split", "inspect"])
def test_a_set_that_is_not_collected_is_one_line(stage: str) -> None:
    """The others read first what follows of these."""
    assert refusal_of_a_rose(stage, "set") == (
        "data/raw/rose/pictures.csv is missing; run `dvc repro collect@rose`"
    )
