"""The one error that reading a model file may end in."""


class ModelFileError(ValueError):
    """A model file is missing, truncated, hostile, or not of the expected kind.

    The text is one sentence for the user: which file, what was found, what was
    expected, what to do next.
    """
