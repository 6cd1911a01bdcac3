"""evaluation.json: the scores of a run's encoders, kept so as to be reused."""

import json
import pathlib
from typing import Any

from fedu_jax.runtime import durable_files
from fedu_jax.runtime import json_files
from fedu_jax.runtime.errors import BadInput


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads the scores of a file, by encoder and protocol.

  Scores of NaN are stored as null. They are left out, and computed again.

  Raises:
    BadInput: the file is unreadable or damaged.
  """
  try:
    known = json.loads(path.read_text()) if path.exists() else {}
    for own in known.values():
      own['scores'] = {
          protocol: values for protocol, values in own.get('scores', {}).items()
          if None not in values.values()}
      if not all(isinstance(x, float | int) for values in
                 own['scores'].values() for x in values.values()):
        raise ValueError('it holds scores that are no numbers')
  except (OSError, ValueError, AttributeError, TypeError) as error:
    raise BadInput(f'{path} cannot be read ({error}): remove it, and ask again'
                   ) from error
  return known


def of(known: dict[str, Any], encoder: str, rounds: int) -> dict[str, Any]:
  """Returns the scores of an encoder after so many rounds, by protocol."""
  own = known.get(encoder, {})
  return own['scores'] if own.get('rounds') == rounds else {}


def add(path: pathlib.Path, encoder: str, rounds: int,
        mine: dict[str, dict[str, float]], before: dict[str, Any]) -> None:
  """Adds scores to a file that other processes may write too.

  Scoring takes minutes, and another process may have added scores meanwhile. If
  these are of a later round of this encoder, they stay, and ours are dropped.

  Args:
    path: the file.
    encoder: the name of the encoder.
    rounds: the rounds after which it was scored.
    mine: the scores, by protocol.
    before: the contents of the file when scoring began.

  Raises:
    OSError: the file cannot be written.
  """
  with durable_files.held(path.with_name('.evaluation.lock'), wait=True):
    known = read(path)
    theirs = known.get(encoder, {}).get('rounds', 0)
    if theirs > rounds and theirs != before.get(encoder, {}).get('rounds'):
      return
    known[encoder] = {'rounds': rounds,
                      'scores': of(known, encoder, rounds) | mine}
    json_files.write(path, known)
