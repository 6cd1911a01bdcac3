"""Silences the threads of libraries after a failed save.

A save is many writes, and Orbax raises the first failure. The other failures
come later, from threads, as stack traces on stderr.
"""

import functools
import logging
import sys
import warnings


@functools.cache
def hush() -> None:
  """Suppresses these stack traces from now on."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)
  # For a write that had not started when another one failed.
  warnings.filterwarnings('ignore', category=RuntimeWarning,
                          message="coroutine 'async_serialize_.*never awaited")
  before = sys.unraisablehook

  def hook(unraisable):
    # TensorStore reports the end of a write to an event loop that is gone.
    if str(unraisable.exc_value) != 'Event loop is closed':
      before(unraisable)
  sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
  text = record.getMessage()
  return not ('_SignalingThread' in text or 'never retrieved' in text)
