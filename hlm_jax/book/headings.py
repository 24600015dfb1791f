"""Chapter headings: numerals in every form, and which lines of a book begin its chapters."""


def number_in(line: str) -> int | None:
    """The chapter number of a heading line or of a file's name without suffix; None without one."""
    raise NotImplementedError
