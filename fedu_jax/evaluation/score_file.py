"""evaluation.json: the scores of a run's encoders, which are computed once."""

import json
import pathlib
from typing import Any

from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput
from fedu_jax.runtime import json_files


def read(path: pathlib.Path) -> dict[str, Any]:
  """The scores that a file holds, by encoder and protocol.

  Those that are no number, which JSON cannot hold, are asked for again.

  Raises:
    BadInput: it is no such file.
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
  """What is known of an encoder after so many rounds, by protocol."""
  own = known.get(encoder, {})
  return own['scores'] if own.get('rounds') == rounds else {}


def add(path: pathlib.Path, encoder: str, rounds: int,
        mine: dict[str, dict[str, float]], before: dict[str, Any]) -> None:
  """Adds scores to those in the file, as others have left it meanwhile.

  To score takes minutes, in which another process may write scores of its own.
  Those of a later round stay, if they are new.

  Args:
    path: of the file.
    encoder: whose scores they are.
    rounds: of its training.
    mine: the scores, by protocol.
    before: what was in the file when scoring began.

  Raises:
    OSError: they cannot be written.
  """
  with durable_files.held(path.with_name('.evaluation.lock'), wait=True):
    known = read(path)
    theirs = known.get(encoder, {}).get('rounds', 0)
    if theirs > rounds and theirs != before.get(encoder, {}).get('rounds'):
      return
    known[encoder] = {'rounds': rounds,
                      'scores': of(known, encoder, rounds) | mine}
    json_files.write(path, known)
