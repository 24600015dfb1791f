"""The one exception for mistakes that the user can mend, and how a command line ends on it.

Every module raises a `UserError` (or its own subclass). Its text is one clear line that tells what
to do. Command lines print that line and exit with code 2. Anything else is a bug of this project
and keeps its traceback.
"""

import contextlib
import sys


class UserError(Exception):
    """A mistake in the input, the command or the machine: one line that tells what to do."""


@contextlib.contextmanager
def exit_on_user_error(program: str):
    """Turns a UserError inside the block into `program: error: …` on stderr and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output (head, less) went away: not an error
        sys.stderr.close()
        raise SystemExit(0) from None
