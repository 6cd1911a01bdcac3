"""The one exception that is the user's to mend."""


class BadInput(ValueError):
  """Something given to us is wrong; the message is one line for a person.

  It says what was wrong, where, and what to do. The command line prints it
  without a traceback and exits with code 2.
  """
