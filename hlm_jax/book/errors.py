"""The errors of books that cannot be read."""

from hlm_jax.errors import UserError


class CorpusError(UserError):
    """A book that cannot be read or is not a book."""


class NoTextError(CorpusError):
    """A file without text. In a folder it is left out with a note."""
