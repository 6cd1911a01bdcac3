"""Errors that end the program with one line and a code of their own."""

LOST = 3  # the exit code of a host if another host was lost or ended


class Ending(Exception):
  """Ends the program; the message is one line for the user.

  The command prints it without a traceback, and exits with `code`.
  """
  code: int


class BadInput(Ending, ValueError):
  """An input is wrong. The message says what, where, and what to do."""
  code = 2


class Unsaved(Ending):
  """Results could not be written; what was saved before stays."""
  code = 4


class OutOfMemory(Ending):
  """The host or a device ran out of memory; saved files stay."""
  code = 7


class Diverged(Ending):
  """A round gave NaN or infinity, so that training cannot go on."""
  code = 6


class Interrupted(Ending):
  """A signal ended the run; started again, it resumes."""
  code = 5
