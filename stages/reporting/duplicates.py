"""What the report shows of the table that the stage `duplicates` writes."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple


class Member(NamedTuple):
    """An image of a group; `distance`, in bits, is that to its nearest partner."""

    image: str
    class_name: str
    kind: str
    distance: int


class DuplicateGroup(NamedTuple):
    """Images that show the same picture; `number` is that of the first one in the set."""

    number: int
    members: list[Member]

    @property
    def is_doubtful(self) -> bool:
        """Whether the same picture bears the names of two classes."""
        return len({each.class_name for each in self.members}) > 1


def parse_duplicates(rows: Sequence[Mapping[str, str]]) -> list[DuplicateGroup]:
    """Groups from the table's rows: those of two classes first, then in the set's order.

    Raises KeyError or ValueError for other tables.
    """
    ordered = sorted(rows, key=lambda row: int(row["group"]))
    groups = [
        DuplicateGroup(
            number,
            [
                Member(row["image"], row["class"], row["kind"], int(row["distance"]))
                for row in members
            ],
        )
        for number, members in groupby(ordered, lambda row: int(row["group"]))
    ]
    return sorted(groups, key=lambda group: not group.is_doubtful)
