"""Guesses which existing name was meant by a wrong one."""

from collections.abc import Iterable
import difflib

# Other programs' names of our fields, if they share no word with ours.
_ALSO = {'dataset': 'data.source', 'path': 'data.source',
         'arch': 'model.name',
         'backbone': 'model.name', 'network': 'model.name',
         'encoder': 'model.name', 'epochs': 'local_epochs',
         'gpus': 'devices', 'sites': 'clients', 'users': 'clients',
         'method': 'learner.name', 'ssl': 'learner.name',
         'ema': 'learner.decay', 'save_every': 'checkpoint.every',
         'eval_every': 'evaluation.every', 'beta': 'partition.alpha',
         'iid': 'partition.name', 'split': 'partition.name',
         'algorithm': 'rule.name', 'threshold': 'rule.threshold',
         'lambda': 'rule.scale', 'mu': 'rule.threshold',
         'dim': 'model.features', 'output_dim': 'model.features',
         'resolution': 'data.image_size', 'img_size': 'data.image_size',
         'optim': 'optimizer.learning_rate'}
_LEAST = 0.55  # the least likeness of a name that is proposed


def near(name: str, names: Iterable[str]) -> str:
  """Returns the name that was most likely meant, or ''.

  Args:
    name: the wrong name; it may have dots.
    names: the names that exist.
  """
  best, most = '', _LEAST
  for other in names:
    if (like := _likeness(name.lower().replace('-', '_'), other)) > most:
      best, most = other, like
  return best


def meant(name: str, names: Iterable[str]) -> str:
  """Returns '; did you mean ...?' for a message, or ''."""
  found = near(name, names)
  return f'; did you mean {found!r}?' if found else ''


def _likeness(name: str, other: str) -> float:
  section, _, leaf = name.rpartition('.')
  theirs, _, last = other.lower().rpartition('.')
  found = 0.95 if _ALSO.get(leaf) == other else _of_words(leaf, last)
  near_by = difflib.SequenceMatcher(None, section, theirs).ratio()
  if found <= _LEAST or last == 'name' and section and near_by < 0.6:
    return 0
  # Of two equally near names, the one in the section that was given.
  return found + 0.2 * near_by


def _of_words(name: str, other: str) -> float:
  """The likeness of two words; one may abbreviate the other."""
  words = other.split('_')
  if name == other:
    return 1
  if len(name) > 1 and name in (''.join(word[0] for word in words if word),
                       other.replace('_', '')):
    return 0.95  # lr: learning_rate; batchsize: batch_size
  if len(name) < 2:
    return 0
  if other.startswith(name):
    return 0.82  # mom: momentum; classes: classes_per_client
  if other in name.split('_'):
    return 0.8  # num_clients: clients
  if name in words:
    return 0.75  # rate: learning_rate
  letters = iter(other)
  if len(name) > 2 and name[0] == other[0] and all(x in letters for x in name):
    return 0.65  # lrate: learning_rate
  if len(words[0]) > 2 and name.split('_')[0] == words[0]:
    return 0.6  # knn_k: knn_neighbours
  return difflib.SequenceMatcher(None, name, other).ratio() * 0.9
