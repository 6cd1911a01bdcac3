"""Encoders as StableHLO, for programs that have JAX and not this package.

  exported = jax.export.deserialize(open('encoder.stablehlo', 'rb').read())
  features = exported.call(images)  # uint8 [N, H, W, C], any N
"""

from typing import Any

from flax import linen as nn
import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from fedu_jax.encoders.encoder import embedded
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.models import convolution

PLATFORMS = 'cpu', 'cuda', 'tpu'


def to_bytes(encoder: Encoder) -> bytes:
  """Returns the encoder as one program for all platforms.

  The weights are constants of the program. Its argument are images [N, H, W, C]
  of the size and dtype in `about`, for any N; its result is [N, D] f32.
  """
  about = encoder.about
  module = _plain(encoder.module)
  variables = jax.tree.map(np.asarray, encoder.variables)

  def one(image: jax.Array) -> jax.Array:
    return embedded(image[None], variables, module=module,
                    projector=about.projector)[0]

  # A network may ask for the number of images, which is not known here. So it
  # is applied to one image, and JAX adds the axis of the batch.
  count, = export.symbolic_shape('n')
  images = jax.ShapeDtypeStruct((count, *about.shape), jnp.dtype(about.dtype))
  exported = export.export(jax.jit(jax.vmap(one)), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())


def _plain(module: nn.Module) -> nn.Module:
  """Replaces our convolutions for CPUs by the one of all platforms."""
  fields: dict[str, Any] = {
      name: x for name, x in vars(module).items() if name != 'parent'}
  changes: dict[str, Any] = {name: _plain(x) for name, x in fields.items()
                             if isinstance(x, nn.Module)}
  if 'convolution' in fields:
    changes['convolution'] = convolution.PLAIN
  return module.clone(**changes)
