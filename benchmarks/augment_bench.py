"""Times the augmentation: its parts, two ways to crop, its share of a step.

  python -m benchmarks.augment_bench --width=64

Numbers are milliseconds for one view of one image. The crop is timed in two
ways that give the same image: as two interpolation matrices, which the package
uses, and as gathers of the input pixels of each output pixel.
"""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.core.state import Array
from fedu_jax.learners import augment
from fedu_jax.learners import crops


def crop_by_gathers(image: Array, top: Array, left: Array, height: Array,
                    width: Array) -> Array:
  """Does `crops.crop_and_resize` for boxes no larger than the image.

  Such a box is never shrunk, so a pixel depends on two rows and two columns.
  """
  def along(image, start, length, size):
    centre = (jnp.arange(size) + 0.5) * (length / size) + start - 0.5
    low = jnp.floor(centre)
    share = (centre - low)[:, None, None]
    inside = lambda at: jnp.clip(at, start, start + length - 1).astype(
        jnp.int32)
    return (1 - share) * image[inside(low)] + share * image[inside(low + 1)]
  rows = along(image, top, height, image.shape[0])
  return along(rows.swapaxes(0, 1), left, width,
               image.shape[1]).swapaxes(0, 1)


def main(argv: list[str] | None = None) -> None:
  """Checks that both crops agree, then times everything in turn."""
  args = timing.parse(
      timing.parser((__doc__ or '').splitlines()[0]), argv)
  work = workload.make(args)
  first = workload.start(work)
  images, rngs = workload.batches(args)
  x, rng = images[0], rngs[0]
  choices = dict(work.config.view)
  off = dict(flip=0., jitter=0., greyscale=0.)

  def cropping(crop):
    def one(image, key):
      box = crops.crop_box(key, *image.shape[:2], scale=choices['scale'],
                             ratio=choices['ratio'])
      return crop(image.astype(jnp.float32) / 255, *box)
    return jax.jit(lambda x, rng: jax.vmap(one)(
        x, jax.random.split(rng, len(x))))
  matrices = cropping(crops.crop_and_resize)
  gathers = cropping(crop_by_gathers)
  timing.check('matrices and gathers', float(jnp.abs(
      matrices(x, rng) - gathers(x, rng)).max()), 1e-4)

  whole = jax.jit(augment.make_view(**choices))
  no_jitter = jax.jit(augment.make_view(**choices | dict(jitter=0.)))
  only_crop = jax.jit(augment.make_view(**choices | off))
  began = time.time()
  scan = workload.compiled(lambda *a: workload.steps(work, *a),
                           jax.tree.map(jnp.array, first), images, rngs)
  compile_seconds = time.time() - began
  seconds = timing.interleave({
      'whole view': lambda: whole(x, rng),
      'without jitter': lambda: no_jitter(x, rng),
      'only the crop': lambda: only_crop(x, rng),
      'crop by matrices': lambda: matrices(x, rng),
      'crop by gathers': lambda: gathers(x, rng),
      'step': workload.repeated(scan, first, images, rngs)}, args.repetitions)
  show = timing.quiet(args)
  for name, values in seconds.items():
    count = args.batch * (args.steps if name == 'step' else 1)
    show(name, values, 'ms/image', 1e3 / count)
  timing.report(
      args, compile_seconds=compile_seconds, seconds=seconds,
      gathers_over_matrices=timing.ratio(seconds['crop by gathers'],
                                         seconds['crop by matrices']),
      milliseconds_per_view=1e3 * statistics.median(
          seconds['whole view']) / args.batch,
      augment_fraction=timing.ratio(seconds['whole view'], seconds['step'],
                                    2 * args.steps))


if __name__ == '__main__':
  main()
