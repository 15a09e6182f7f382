"""Protocols: who trains, who validates and, where the set has a test part, who tests."""

import hashlib
from collections.abc import Sequence

import numpy as np

from stages.common.command_line import UserError
from stages.pictures.table import PARTS, Labels, Parts, PictureTable

PROTOCOLS = ("stratified", "official", "ordered")


def stratified(labels: Labels, fraction: float, seed: int) -> Parts:
    """`train` or `val` for each image: scikit-learn's stratified split of the file order.

    With fraction 0.2 and seed 42 it is the split that the article used. Raises UserError when a
    class or part would be too small to be split.
    """
    # Here, as it takes a second to load.
    from sklearn.model_selection import train_test_split

    try:
        _, val = train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise UserError(f"split.fraction {fraction} leaves no stratified split: {error}") from error
    parts = np.full(len(labels), "train", dtype="<U5")
    parts[val] = "val"
    return parts


def drawn_by_content(
    labels: Labels, groups: Labels, keys: Sequence[str], fraction: float, seed: int
) -> Parts:
    """`train` or `val` for each image of a set that may grow, by `seed` and the image's own key.

    A picture that comes or goes moves one other of its class at most, but for duplicates, so scores
    before and after are of nearly the same val. Of each class, `fraction` is val, to the nearest
    whole number, and at least one image. `keys`, shape (images,), tell contents apart. Groups,
    shape (images,), are not divided within a class; one that is too large for val trains, unless
    val would be empty.
    """
    ranks = [hashlib.sha256(f"{seed} {key}".encode()).hexdigest() for key in keys]
    parts = np.full(len(labels), "train", dtype="<U5")
    for label in np.unique(labels):
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(labels == label).tolist():
            members.setdefault(int(groups[row]), []).append(row)
        ordered = sorted(members.values(), key=lambda rows: min(ranks[row] for row in rows))
        wanted = max(1, round(fraction * sum(map(len, ordered))))
        val: list[int] = []
        for rows in ordered[: len(ordered) - 1]:
            val += rows if len(val) + len(rows) <= wanted else []
        if not val and len(ordered) > 1:
            val = min(ordered, key=len)
        parts[val] = "val"
    return parts


def keep_groups_together(parts: Parts, groups: Labels) -> Parts:
    """Parts, shape (images,), in which no group of images stands on two sides.

    A group that straddles goes as a whole to the earliest of train, val and test that it touches,
    so that whoever is judged on a picture has not learned from it; all else stays as it is.
    """
    places = np.array([PARTS.index(part) for part in parts])
    earliest = np.full(groups.max() + 1, len(PARTS))
    np.minimum.at(earliest, groups, places)
    return np.array(PARTS)[earliest[groups]]


def choose_parts(
    table: PictureTable,
    grows: bool,
    groups: Labels,
    protocol: str,
    fraction: float,
    seed: int,
    fold: int,
) -> Parts:
    """The part of every picture by one of PROTOCOLS.

    The stratified split of a set that `grows` goes by content, so that it hardly changes with the
    set. `fold`, from 1, chooses among the folds of a published split, over and over where they are
    fewer. Raises UserError when the set does not have that protocol.
    """
    folds = table.splits.get(protocol)
    if folds:
        return folds[(fold - 1) % len(folds)]
    if protocol != "stratified":
        there = ", ".join(["stratified", *table.splits])
        raise UserError(
            f"split.protocol: the set has no split {protocol!r}, or a file of it could not be had "
            f"by `collect`; there are: {there}"
        )
    if grows and "official" in table.splits:
        raise UserError(
            "split.protocol: the set has parts of its own; set it to official, or put the set's "
            "classes side by side to have them split at random"
        )
    if grows:
        return drawn_by_content(table.labels, groups, table.digests, fraction, seed)
    return stratified(table.labels, fraction, seed)


def check_parts(
    drawn: Parts, together: Parts, parts: Parts, table: PictureTable, both_sides: bool
) -> None:
    """Raise UserError where a class has nothing to learn from, or nothing is there to be judged.

    `drawn` are the parts as drawn, `together` those with groups of duplicates on one side, `parts`
    those without pictures that cannot be read; with `both_sides` each class must be in val too.
    """
    for label, name in enumerate(table.class_names):
        own = table.labels == label
        for part in ("train", "val") if both_sides else ("train",):
            if part not in parts[own]:
                raise UserError(_why_empty(f"class {name!r}", part, drawn[own], together[own]))
    reported = "test" if "test" in drawn else "val"
    if reported not in parts:
        raise UserError(_why_empty("the set", reported, drawn, together))


def _why_empty(what: str, part: str, drawn: Parts, together: Parts) -> str:
    if part in together:
        why = "none of its pictures there can be read; put whole ones in their place"
    elif part in drawn:
        why = (
            "its pictures there are duplicates of others, and stay with these; see "
            "data/duplicates, add pictures, or set split.group_duplicates to false"
        )
    else:
        why = (
            "add pictures that are not duplicates (see data/duplicates), or choose another "
            "split.protocol"
        )
    return f"{what} has nothing in {part}: {why}"
