"""Encoders, which are a backbone and a projector, and the predictor MLP.

The heads are those of the released code (EasyFL, `model.py`), with PyTorch's
BatchNorm and default initialisation. `resnet.py` has the backbones.

The field `dtype` of a module is the dtype of its products' factors and of the
maps between layers; None means the dtype of the parameters. With bfloat16 these
stay in float32: parameters, BatchNorm's statistics and normalisation, the
pooled features, and the output of a dense layer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import inspect
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fedu_jax.core.state import Array, Online, PyTree, Variables
from fedu_jax.models.layers import MLP
from fedu_jax.models.resnet import BasicBlock
from fedu_jax.models.resnet import Bottleneck
from fedu_jax.models.resnet import ResNet
from fedu_jax.models.vit import ViT

PATCHES = {'cifar': 4, 'imagenet': 16}  # stem -> the patch of a ViT, if unset
HEADS = {'vit_tiny': 3, 'vit_small': 6}  # names of NETWORKS -> heads
TRANSFORMERS = tuple(HEADS)
_DEPTH = 12  # the blocks of a ViT


class Encoder(nn.Module):
  """Backbone and projector: the part whose drift FedU measures."""
  backbone: nn.Module
  projector: nn.Module

  def features(self, x: Array, *, train: bool = False, **more: int) -> Array:
    """The representation below the projector: [B, H, W, C] f32 -> [B, D]."""
    return self.backbone(x, train=train, **more)

  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    # A researcher's own module may not take `views`, see `take_views`.
    more = {'views': views} if views > 1 else {}
    return self.projector(self.features(x, train=train, **more), train=train,
                          **more)


class Nets(NamedTuple):
  """The two modules that a client trains, and how views go through them."""
  encoder: nn.Module
  predictor: nn.Module
  together: bool = False  # whether both views go through a network at once
  # The dtype of kernels that a step leaves to the next one; None leaves none,
  # and each layer rounds its own kernel.
  rounded: str | None = None


def _nets(block: type[nn.Module], stages: Sequence[int], *, width: int,
          dtype: str | None, convolution: str, stem: str, normalise: str,
          **heads: int) -> Nets:
  return _with_heads(ResNet(block, stages, width, dtype, convolution, stem,
                            normalise), dtype=dtype, **heads)


def _with_heads(backbone: nn.Module, *, hidden: int, features: int,
                projector_layers: int, predictor_layers: int,
                dtype: str | None) -> Nets:
  head = functools.partial(MLP, hidden, features, dtype)
  return Nets(Encoder(backbone, head(projector_layers)),
              head(predictor_layers))


def resnet18(*, width: int = 64, hidden: int = 4096, features: int = 2048,
             projector_layers: int = 2, predictor_layers: int = 2,
             dtype: str | None = None, convolution: str = 'fast',
             stem: str = 'cifar', normalise: str = 'none') -> Nets:
  """Builds ResNet-18 with a projector, and the predictor.

  Args:
    width: the channels of the first stage. The representation has 8 * width
      features.
    hidden: the hidden units of the projector and of the predictor.
    features: the output units of the projector and of the predictor.
    projector_layers: 2, 1 (one Linear), or 0 (no projector).
    predictor_layers: 2, 1 (one Linear), or 0 (no predictor).
    dtype: the dtype of products and maps; None is the parameters', see the
      module's docstring.
    convolution: 'fast', or 'exact' without methods that round more; see
      `convolution.conv`.
    stem: 'cifar' or 'imagenet', see `resnet.py`.
    normalise: 'none', or 'imagenet'; see `normalisation.normalised`.
  """
  return _nets(BasicBlock, (2, 2, 2, 2), **locals())


def resnet34(*, width: int = 64, hidden: int = 4096, features: int = 2048,
             projector_layers: int = 2, predictor_layers: int = 2,
             dtype: str | None = None, convolution: str = 'fast',
             stem: str = 'cifar', normalise: str = 'none') -> Nets:
  """Builds ResNet-34, with 8 * width features; arguments as in `resnet18`."""
  return _nets(BasicBlock, (3, 4, 6, 3), **locals())


def resnet50(*, width: int = 64, hidden: int = 4096, features: int = 2048,
             projector_layers: int = 2, predictor_layers: int = 2,
             dtype: str | None = None, convolution: str = 'fast',
             stem: str = 'cifar', normalise: str = 'none') -> Nets:
  """Builds ResNet-50, with 32 * width features; arguments as in `resnet18`."""
  return _nets(Bottleneck, (3, 4, 6, 3), **locals())


def resnet10(*, width: int = 64, hidden: int = 4096, features: int = 2048,
             projector_layers: int = 2, predictor_layers: int = 2,
             dtype: str | None = None, convolution: str = 'fast',
             stem: str = 'cifar', normalise: str = 'none') -> Nets:
  """Builds a ResNet with one block a stage, for small images or little time.

  Arguments as in `resnet18`; 8 * width features.
  """
  return _nets(BasicBlock, (1, 1, 1, 1), **locals())


def resnet6(*, width: int = 64, hidden: int = 4096, features: int = 2048,
            projector_layers: int = 2, predictor_layers: int = 2,
            dtype: str | None = None, convolution: str = 'fast',
            stem: str = 'cifar', normalise: str = 'none') -> Nets:
  """Builds a ResNet of two blocks, which compiles in seconds, for trials.

  Arguments as in `resnet18`; 2 * width features.
  """
  return _nets(BasicBlock, (1, 1), **locals())


def vit_tiny(*, width: int = 64, hidden: int = 4096, features: int = 2048,
             projector_layers: int = 2, predictor_layers: int = 2,
             dtype: str | None = None, stem: str = 'cifar',
             normalise: str = 'none', patch: int = 0) -> Nets:
  """Builds a ViT-Tiny with a projector, and the predictor.

  Args:
    width: the channels of each of 3 heads; the representation has 3 * width
      features.
    hidden: as in `resnet18`.
    features: as in `resnet18`.
    projector_layers: as in `resnet18`.
    predictor_layers: as in `resnet18`.
    dtype: as in `resnet18`.
    stem: chooses the patch if that is 0: 4 pixels for 'cifar', 16 for
      'imagenet'.
    normalise: as in `resnet18`.
    patch: the pixels of a patch's side; 0 for those of the stem.
  """
  return _vit(HEADS['vit_tiny'], **locals())


def vit_small(*, width: int = 64, hidden: int = 4096, features: int = 2048,
              projector_layers: int = 2, predictor_layers: int = 2,
              dtype: str | None = None, stem: str = 'cifar',
              normalise: str = 'none', patch: int = 0) -> Nets:
  """Builds a ViT-Small: 6 heads, else as `vit_tiny`."""
  return _vit(HEADS['vit_small'], **locals())


def _vit(heads: int, *, width: int, dtype: str | None, stem: str,
         normalise: str, patch: int, **head_sizes: int) -> Nets:
  return _with_heads(ViT(_DEPTH, heads, width, patch or PATCHES[stem], dtype,
                         normalise), dtype=dtype, **head_sizes)


def init_online(nets: Nets, rng: Array, images: Array) -> Online:
  """Draws the server's first network.

  Args:
    nets: the encoder's and the predictor's modules.
    rng: a key.
    images: [B, H, W, C] f32; only their shape is used.
  """
  @jax.jit  # one program instead of one for each operation
  def draw(rng):
    rng_encoder, rng_predictor = jax.random.split(rng)
    encoder = nets.encoder.init(rng_encoder, images, train=True)
    z = nets.encoder.apply(encoder, images, train=False)
    predictor = nets.predictor.init(rng_predictor, z, train=True)
    return Online(variables(encoder), variables(predictor))
  return draw(rng)


def take_views(nets: Nets) -> bool:
  """Whether all modules can take several batches at once, as `views`."""
  def takes(module):
    parts = [value for name, value in vars(module).items()
             if name != 'parent' and isinstance(value, nn.Module)]
    return ('views' in inspect.signature(type(module).__call__).parameters
            and all(map(takes, parts)))
  return takes(nets.encoder) and takes(nets.predictor)


def embeddings(nets: Nets, online: Online, images: Array
               ) -> tuple[Array, Array]:
  """Returns encoder's and predictor's outputs in evaluation mode, [B, D] each.
  """
  z: Any = nets.encoder.apply(online.encoder._asdict(), images, train=False)
  prediction: Any = nets.predictor.apply(online.predictor._asdict(), z,
                                         train=False)
  return z, prediction


def features_method(module: nn.Module) -> str:
  """Names the method that returns the representation below the projector.

  A module without a method `features` has no projector; its output is the
  representation.
  """
  named = callable(getattr(type(module), 'features', None))
  return 'features' if named else '__call__'


def variables(collections: Mapping[str, Any]) -> Variables:
  """Makes Variables of Flax's collections, some of which a module may lack."""
  return Variables(collections.get('params', {}),
                   collections.get('batch_stats', {}))


def forward(module: nn.Module, variables: Variables, x: Array,
            rounded: PyTree = (), **more: Any) -> tuple[Array, Variables]:
  """Runs a module in training mode; returns its output and new statistics.

  Args:
    module: the network.
    variables: its parameters and statistics.
    x: its input.
    rounded: its kernels as `layers.round_kernels` makes them; () for none.
    **more: further keyword arguments of the module, such as `views`.
  """
  collections = variables._asdict() | ({'rounded': rounded} if rounded else {})
  y, changed = module.apply(collections, x, train=True, **more,
                            mutable=['batch_stats'])
  return y, variables._replace(batch_stats=changed.get('batch_stats', {}))


def with_statistics_of(batches: Iterable[ArrayLike], module: nn.Module,
                       variables: Variables) -> Variables:
  """Replaces a network's tracked statistics by exact means over batches.

  Each batch passes the network once in training mode, so each layer sees inputs
  normalised by the same batch. Each batch has the same weight ("precise
  BatchNorm", Wu & Johnson 2021, section 3). The old statistics have no effect.

  A module tracks (1 - m) * old + m * batch, where m is not visible from here.
  Starting from 0 gives m * batch. Starting from a large number gives m.

  Args:
    batches: each [B, H, W, C] f32; at least one.
    module: the network.
    variables: its parameters, and any statistics.

  Returns:
    The parameters with the new statistics.
  """
  def tracked(stats, x):
    return forward(module, variables._replace(batch_stats=stats), x)[
        1].batch_stats
  filled = lambda value: jax.tree.map(
      lambda x: jnp.full_like(x, value), variables.batch_stats)
  add = jax.jit(lambda total, x: jax.tree.map(
      jnp.add, total, tracked(filled(0), x)))

  @jax.jit
  def momentum(x):
    large = 2.**20  # much larger than a batch's statistics
    return jax.tree.map(lambda high, low: 1 - (high - low) / large,
                        tracked(filled(large), x), tracked(filled(0), x))
  total, count, shares = filled(0), 0, None
  for x in batches:
    shares = momentum(x) if shares is None else shares
    total, count = add(total, jnp.asarray(x)), count + 1
  stats = jax.tree.map(
      lambda t, m, old: jnp.where(m > 0, t / jnp.where(m > 0, m, 1) / count,
                                  old), total, shares, variables.batch_stats)
  return variables._replace(batch_stats=stats)


# config.model.name -> a function.
NETWORKS: dict[str, Callable[..., Nets]] = {
    'resnet18': resnet18,
    'resnet34': resnet34,
    'resnet50': resnet50,
    'resnet10': resnet10,
    'resnet6': resnet6,
    'vit_tiny': vit_tiny,
    'vit_small': vit_small,
}
