"""The words of a command line for a run of a second or two: few rows of synthetic text, a narrow model, one
thread.
"""

ROWS = (200, 40, 40)  # train, validation, test


def rows(train: int, validation: int, test: int) -> list[str]:
    """So many synthetic texts."""
    return [
        f"dataset.train_size={train}",
        f"dataset.validation_size={validation}",
        f"dataset.test_size={test}",
    ]


def tiny(
    *words: str, sizes: tuple[int, int, int] | None = ROWS, width: int = 32, heads: int = 1
) -> list[str]:
    """`words` over the smallest useful run; `sizes=None` for files, which have the rows that they have."""
    data = [] if sizes is None else rows(*sizes)
    return [
        *data,
        f"model.hidden_size={width}",
        f"model.num_attention_heads={heads}",
        "compute.threads=1",
        *words,
    ]
