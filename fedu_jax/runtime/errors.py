"""How the program ends if not well: in one line, with a code of its own."""

LOST = 3  # the exit code of a host whose run another has ended


class Ending(Exception):
  """Ends the program; the message is one line for a person.

  The command line prints it without a traceback, and exits with `code`.
  """
  code: int


class BadInput(Ending, ValueError):
  """Something given to us is wrong, which is the user's to mend.

  The message says what was wrong, where, and what to do.
  """
  code = 2


class Unsaved(Ending):
  """The run came to its end, but not all of it could be written."""
  code = 4


class OutOfMemory(Ending):
  """The memory of the host or of a device ran out; what is saved stays."""
  code = 7


class Diverged(Ending):
  """Numbers went wrong in a round, so that no other can follow."""
  code = 6


class Interrupted(Ending):
  """A signal asked the run to end; it goes on when it is started again."""
  code = 5
