"""Reading of YAML as DVC reads it, and of the lists of names in params.yaml."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.command_line import UserError


def read_yaml(path: Path) -> dict[str, Any]:
    """What a file of YAML holds by name: of an empty file nothing, as DVC has it.

    By DVC's reader and so by YAML 1.2, where `off` and `yes` are texts and `007` is 7. Raises
    UserError for a file that is missing, is not valid YAML, or holds no names.
    """
    try:
        values = YAML(typ="safe").load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({_describe(error)}); correct it") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} is no list of `NAME: VALUE`; correct it")
    return values


def _describe(error: Exception) -> str:
    """What is wrong with a text of YAML and, where it is known, in which line."""
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return line + " ".join(str(getattr(error, "problem", None) or error).split())


def names(params: Mapping[str, Any], key: str, path: Path) -> list[str]:
    """The list `key` of the parameters, one name at least, as the texts that DVC makes stages of.

    DVC takes a whole number for its text (2024, but 7 for 007), and what is listed twice once.
    `path` is the file that holds `params`. Raises UserError for what is no list of names.
    """
    value = params.get(key)
    if value is None or value == []:
        raise UserError(f"{path} has nothing in {key}; list a name there: `{key}: [NAME]`")
    if not isinstance(value, list):
        raise UserError(
            f"{path} has {key}: {_as_yaml(value)}, which is no list; write `{key}: [NAME]`, "
            "in brackets"
        )
    for each in value:
        if isinstance(each, bool) or not isinstance(each, str | int):
            raise UserError(
                f"{path} has {_as_yaml(each)} in {key}, which is no text to YAML; put the name "
                "in quotes"
            )
    return list(dict.fromkeys(map(str, value)))


def _as_yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
