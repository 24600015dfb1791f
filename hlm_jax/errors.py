"""The one exception for mistakes that the user can mend, and how a command line ends on it.

Every module raises a `UserError` (or its own subclass). Its text is one clear line that tells what
to do. Command lines print that line and exit with code 2, or with 130 where the user stopped them.
Anything else is a bug of this project and keeps its traceback.
"""

import contextlib
import sys


class UserError(Exception):
    """A mistake in the input, the command or the machine: one line that tells what to do."""


class Stopped(UserError):
    """A signal ended a command early and nothing is wrong: one line that tells how to go on."""


@contextlib.contextmanager
def exit_on_user_error(program: str):
    """Turns a UserError inside the block into `program: error: …` on stderr and exit code 2.

    A `Stopped` becomes `program: …` and code 130, as Ctrl-C has where nothing is to be saved.
    """
    try:
        yield
    except Stopped as stopped:
        print(f"{program}: {stopped}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output (head, less) went away: not an error
        sys.stderr.close()
        raise SystemExit(0) from None
