"""What threads of libraries go on to say when a save has failed.

Orbax raises the first failure of many writes. The others come later, from
threads that nobody waits for any more, as stack traces on stderr.
"""

import functools
import logging
import sys
import warnings


@functools.cache
def hush() -> None:
  """Lets nothing of that be heard, from here on."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)
  # A write that had not begun when another failed.
  warnings.filterwarnings('ignore', category=RuntimeWarning,
                          message="coroutine 'async_serialize_.*never awaited")
  before = sys.unraisablehook

  def hook(unraisable):
    # Where TensorStore tells a loop of the end of a write.
    if str(unraisable.exc_value) != 'Event loop is closed':
      before(unraisable)
  sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
  text = record.getMessage()
  return not ('_SignalingThread' in text or 'never retrieved' in text)
