"""What a user of the sweeper can mend."""


class SpaceError(ValueError):
    """A search that cannot be made as it was asked for; one line."""
