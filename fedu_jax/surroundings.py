"""What the program finds on the machine that it runs on: the user's folders."""

import os
import pathlib


def user_cache(name: str) -> pathlib.Path:
  """A folder of ours in the user's cache; not made yet."""
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base, 'fedu_jax', name).expanduser()
