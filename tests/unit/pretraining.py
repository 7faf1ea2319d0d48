"""A vocabulary and rows of our own making, for the tests of pretraining objectives."""

from typing import Any

import numpy as np

from bertlab.contracts import Special, Vocabulary

SPECIAL = Special(pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
SIZE = 60  # ids 5 to 39 open a word, 40 to 59 continue one


def vocabulary() -> Vocabulary:
    ids = np.arange(SIZE)
    return Vocabulary(SPECIAL, ids >= 40, np.where(ids < 5, 0, 1 + ids % 3), ids < 5)


class Rows(dict[str, Any]):
    """What objectives need of a `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        return list(self)

    def __len__(self) -> int:
        return len(next(iter(self.values())))

    def __getitem__(self, place: Any) -> Any:
        return (
            {name: values[place] for name, values in self.items()}
            if isinstance(place, slice)
            else super().__getitem__(place)
        )


def encode(texts: Any) -> list[list[int]]:
    """Letters a to z are words 5 to 30; a digit continues the word before it; other characters stand for
    nothing.
    """
    values = {
        **{letter: 5 + index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")},
        **{str(d): 40 + d for d in range(10)},
    }
    return [[values[letter] for letter in text if letter in values] for text in texts]
