"""A floor of a round's time on a chip, from its published peaks.

This is a model and not a measurement. Three times are computed: of the
products, of the bytes that kernels move, and of the launches of kernels. If
they overlapped wholly, the longest would be the time; if they did not overlap,
their sum. The longest is a lower bound, but for bytes that hit in a cache.
"""

from typing import NamedTuple

from fedu_jax.plan.chip_files import Chip
from fedu_jax.plan.program_counts import ProgramCounts
from fedu_jax.plan.program_counts import Work
from fedu_jax.training.engine import cost_model


class Times(NamedTuple):
  """Seconds of a piece of work on a chip."""
  compute: float
  bandwidth: float
  launches: float

  @property
  def least(self) -> float:
    """If all three overlap."""
    return max(self)

  @property
  def most(self) -> float:
    """If nothing overlaps."""
    return sum(self)

  @property
  def bound(self) -> str:
    """What takes longest."""
    return {'compute': 'products', 'bandwidth': "memory's bandwidth",
            'launches': 'launches of kernels'}[
                max(self._fields, key=lambda field: getattr(self, field))]


class Floor(NamedTuple):
  """What the model says of a federation.

  Attributes:
    step: the times of a turn of the loop over steps.
    rest: the times of the rest of the round's program.
    images: the images that a device trains on in that turn.
    round: the least and most seconds of a round.
    run: the least and most seconds of all rounds.
    rate: the least and most images a second that all devices train on.
  """
  step: Times
  rest: Times
  images: float
  round: tuple[float, float]
  run: tuple[float, float]
  rate: tuple[float, float]


def arithmetic(dtype: str, precision: str = 'default') -> str:
  """Names the arithmetic of a network's products, as in `Chip.peak`.

  Args:
    dtype: the dtype of its inputs, float32 or bfloat16.
    precision: of float32, what is multiplied: 'default' for JAX's choice,
      'tensorfloat32' or 'float32'.
  """
  if dtype == 'bfloat16':
    return dtype
  return 'float32_default' if precision == 'default' else precision


def times(work: Work, operations: float, chip: Chip, kind: str) -> Times:
  """Computes the times of a piece of work.

  Args:
    work: its kernels and bytes.
    operations: its operations in products.
    chip: the chip.
    kind: the arithmetic of the products, a name in `Chip.peak`.
  """
  return Times(operations / chip.peak[kind],
               (work.bytes + work.copied) / chip.bandwidth,
               (work.kernels + work.copies) * chip.launch_microseconds * 1e-6)


def floor(counts: ProgramCounts, sizes: cost_model.Sizes, per_image: float,
          chip: Chip, kind: str) -> Floor:
  """Computes the floor of a federation's time, without what the host does.

  Args:
    counts: the counts of the program of a round, a slice or a chunk.
    sizes: the sizes of the federation.
    per_image: operations of a step for one image.
    chip: the chip.
    kind: the arithmetic of the products, a name in `Chip.peak`.
  """
  trained = sizes.images_trained / sizes.runs / sizes.group  # in one program
  loop = counts.step
  turns = loop.turns if loop else 1
  images = trained / turns
  step = times(loop.work if loop else Work(), images * per_image, chip, kind)
  rest = times(counts.rest, 0, chip, kind)
  least, most = (sizes.runs * (turns * getattr(step, end) + getattr(rest, end))
                 for end in ('least', 'most'))
  everywhere = sizes.images_trained * sizes.groups
  return Floor(step, rest, images, (least, most),
               (sizes.rounds * least, sizes.rounds * most),
               (everywhere / most, everywhere / least))
