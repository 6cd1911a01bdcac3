"""Scores a finished run's checkpoint: `python -m fedu_jax.evaluate`.

  python -m fedu_jax.evaluate --workdir=/tmp/run \\
      --protocol=linear,knn,semi:0.01,semi:0.1,transfer:digits
"""

from absl import app
from absl import flags
from absl import logging

from fedu_jax import command
from fedu_jax import protocols
from fedu_jax import stops
from fedu_jax.errors import Ending

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of a run that has saved a checkpoint.')
_PROTOCOL = flags.DEFINE_string(
    'protocol', 'linear,knn', 'What to ask, separated by commas: linear[:raw], '
    'knn, knn_features, classifier, semi:<share>[:balanced], '
    'finetune:<share>[:balanced], transfer:<data source>, geometry.')
_ENCODER = flags.DEFINE_string(
    'encoder', 'federation', 'Whose: federation, untrained, or alone<client>.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', "Where data sets lie; '' for TFDS's default.")


def main(_: list[str]) -> None:
  """Scores, or says in one line why it cannot."""
  logging.set_verbosity(logging.ERROR)
  stops.listen()
  command.keep_compiled_programs()
  if _WORKDIR.value is None:
    command.refuse('--workdir is missing; for example --workdir=/tmp/run')
  try:
    protocols.ask(str(_WORKDIR.value), str(_PROTOCOL.value),
                  encoder=str(_ENCODER.value), data_dir=str(_DATA_DIR.value))
  except Ending as ending:
    command.leave(ending)


if __name__ == '__main__':
  app.run(main, flags_parser=command.parse)
