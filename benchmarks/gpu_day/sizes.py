"""The sizes of all stages: those of a GPU, and tiny ones for a rehearsal."""

from typing import Any, NamedTuple

from benchmarks.gpu_day.budget import Stage


class Sizes(NamedTuple):
  """The sizes of all stages.

  Attributes:
    matrix: the side of the matrices whose product is timed.
    copied: bytes of the array whose copy is timed.
    network: flags of a step: model, width, hidden, features, batch, size.
    steps: steps of one timed run.
    repetitions: timed runs of each variant.
    images: images of each split that are decoded; 0 for all.
    rounds: the most rounds of the paper's run.
    paper: fields of configs/cifar10.py that the paper's run changes.
    same: fields that the runs compared bit by bit change.
  """
  matrix: int
  copied: int
  network: dict[str, Any]
  steps: int
  repetitions: int
  images: int
  rounds: int
  paper: dict[str, Any]
  same: dict[str, Any]


REAL = Sizes(
    matrix=8192, copied=2**32,
    network=dict(model='resnet18', width=64, hidden=4096, features=2048,
                 batch=128, size=32),
    steps=20, repetitions=7, images=0, rounds=100,
    paper={'model.dtype': 'bfloat16', 'evaluation.every': 5,
           'checkpoint.every': 5, 'checkpoint.keep': 1},
    same={'model.dtype': 'bfloat16', 'model.width': 16, 'model.hidden': 512,
          'model.features': 256, 'rounds': 2, 'local_epochs': 1,
          'data.max_examples': 6400, 'evaluation.every': 1,
          'evaluation.probe_epochs': 5})

_TINY = {'model.name': 'resnet6', 'model.width': 2, 'model.hidden': 16,
         'model.features': 8, 'view.jitter': 0.0, 'batch_size': 32,
         'local_epochs': 1, 'data.max_examples': 640, 'data.image_size': 8,
         'evaluation.knn_neighbours': 20, 'evaluation.probe_epochs': 2,
         'evaluation.every': 1, 'checkpoint.every': 1, 'checkpoint.keep': 1}
TINY = Sizes(
    matrix=256, copied=2**22,
    network=dict(model='resnet6', width=8, hidden=32, features=16, batch=8,
                 size=8),
    steps=2, repetitions=2, images=1000, rounds=4,
    paper=_TINY, same=_TINY | {'rounds': 2})

# In the order of a day. A measurement is made by a process that has JAX; the
# stages after them start commands.
MEASUREMENTS = (
    Stage('device', 5, 40, 'device, memory and versions'),
    Stage('guard', 10, 60, 'a small round without transfers to or from the '
          'host'),
    Stage('peaks', 10, 40, 'matrix products and copies a second'),
    Stage('peer', 40, 150, 'the step in bfloat16, eager and compiled PyTorch '
          'in turns'),
    Stage('executions', 30, 120, 'five clients by map and by vmap'),
    Stage('dtypes', 30, 150, 'the step with random views, and in float32'),
    Stage('same', 30, 110, 'equal runs compared bit by bit'),
    Stage('memory', 30, 150, "the paper's round: memory foreseen and used, "
          'seconds', fresh=True),
    Stage('profile', 15, 130, 'the kernels of a step by time'))
PAPER = Stage('paper', 60, 600, "the paper's FedU, non-IID, with a schedule "
              'that fits')
RIVAL = Stage('rival', 60, 600, 'FedBYOL with the same schedule')
STAGES = (*MEASUREMENTS, PAPER, RIVAL)
