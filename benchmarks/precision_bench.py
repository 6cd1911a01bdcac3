"""Measures the rounding error of float32, layer by layer: ours and PyTorch's.

  python -m benchmarks.precision_bench --batch=16

Every number is |float32 - float64| / |float64|, with norms of whole arrays. The
first table is for single convolutions. Each gets the inputs and the output's
gradient of the float64 step, so the error is the layer's own. The second table
is for a whole BYOL step: the projector's output, and the gradients of all
parameters, as median (lowest to highest) over --repetitions draws of images.
Gradients differ by some 1e-3 in all ways, most likely because rounding moves
units across the kink of ReLU. 'exact' is `model.convolution=exact`. Nothing is
timed; `conv_bench` and `step_bench` time it with --convolution=exact.
"""

import argparse
from collections.abc import Callable
import copy
import functools
import statistics
import sys
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lib import timing
from fedu_jax.core.state import Array, Online, PyTree
from fedu_jax.learners import losses
from fedu_jax.learners import online_step
from fedu_jax.models import convolution
from fedu_jax.models import networks
from fedu_jax.models.layers import Conv

PARTS = ('forward', 'to the input', 'to the kernel')
NETWORK = ('projector output', 'gradients')
Errors = dict[str, dict[str, list[float]]]  # row -> way -> relative errors


class Layer(NamedTuple):
  """A convolution with its arrays in float64."""
  x: Array  # [B, H, W, C]
  kernel: Array  # [k, k, C, F]
  d_y: Array  # [B, H', W', F], the gradient of its output
  stride: int


def main(argv: list[str] | None = None) -> None:
  """Prints both tables, or one JSON object."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.set_defaults(batch=16)
  args = timing.parse(flags, argv)
  with jax.enable_x64():
    online, modules = _start(args)
    small = _as(jnp.float32, online)
    steps: dict[str, Callable[..., Any]] = {
        way: functools.partial(_step, _nets(args, way), small)
        for way in convolution.CONVOLUTIONS}
    if modules:
      steps['PyTorch'] = functools.partial(_torch_step, modules)
    ways = list(steps)
    network: Errors = {row: {way: [] for way in ways} for row in NETWORK}
    for draw in range(args.repetitions):
      views = _views(args, draw)
      whole = _step(_nets(args, 'exact'), online, views)
      for way, step in steps.items():
        for row, ours, exact in zip(NETWORK, step(_as(jnp.float32, views)),
                                    whole, strict=True):
          network[row][way].append(error(ours, exact))
    single = {name: _layer_errors(layer, ways) for name, layer in
              _layers(args, online, _views(args, 0)).items()}
  if not args.json:
    print(f'{"":<50}' + ''.join(f'{way:>28}' for way in ways))
    for name, rows in (*single.items(), ('whole network', network)):
      for row, errors in rows.items():
        print(f'{name:<32}{row:<18}'
              + ''.join(f'{_shown(errors[way]):>28}' for way in ways))
  timing.report(args, layers=single, network=network)


def error(ours: PyTree, exact: PyTree) -> float:
  """Returns the relative error of a whole tree, by norms."""
  return timing.movement_error(
      jax.tree.map(jnp.zeros_like, exact), ours, exact)


def _shown(values: list[float]) -> str:
  middle = f'{statistics.median(values):.1e}'
  return middle if len(values) == 1 else (
      f'{middle} ({min(values):.0e} to {max(values):.0e})')


def _views(args: argparse.Namespace, draw: int) -> list[Array]:
  """Draws two batches of images in float64, exact in float32."""
  views = [timing.random_images(args.batch, args.size, seed) / 255.
           for seed in (2 * draw, 2 * draw + 1)]
  return _as(jnp.float64, _as(jnp.float32, views))


def _as(dtype: Any, tree: PyTree) -> PyTree:
  return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def _nets(args: argparse.Namespace, convolution: str) -> networks.Nets:
  return getattr(networks, args.model)(
      width=args.width, hidden=args.hidden, features=args.features,
      convolution=convolution)


def _start(args: argparse.Namespace) -> tuple[Online, Any]:
  """Draws first weights in float64, exact in float32, as PyTorch's modules too.

  Without PyTorch, the weights are ours, and there are no modules.
  """
  try:
    from benchmarks.lib import torch_peer
    from tests.helpers import torch_weights
  except ImportError as failure:
    print(f'note: without PyTorch ({failure})', file=sys.stderr)
    return _as(jnp.float64, networks.init_online(
        _nets(args, 'exact'), jax.random.key(0),
        jnp.zeros((2, args.size, args.size, 3), jnp.float32))), None
  modules = torch_peer.nets(args)
  return _as(jnp.float64, torch_weights.online_from(*modules)), modules


def _loss(nets: networks.Nets, online: Online,
          views: list[Array]) -> tuple[Array, Array]:
  """BYOL's loss with a target equal to the online encoder; the projections."""
  z1, z2, _ = online_step.two_views(
      nets.encoder, online.encoder, *views)
  p1, p2, _ = online_step.two_views(
      nets.predictor, online.predictor, z1, z2, together=nets.together)
  t1, t2 = jax.lax.stop_gradient((z1, z2))
  return (losses.regression_loss(p1, t2)
          + losses.regression_loss(p2, t1)).mean(), z1


@functools.partial(jax.jit, static_argnums=0)
def _step(nets: networks.Nets, online: Online,
          views: list[Array]) -> tuple[Array, PyTree]:
  """Returns the projector's output and the gradients of all parameters."""
  grads, z = jax.grad(_loss, argnums=1, has_aux=True)(nets, online, views)
  return z, (grads.encoder.params, grads.predictor.params)


def _layers(args: argparse.Namespace, online: Online, views: list[Array]
            ) -> dict[str, Layer]:
  """Collects the float64 arrays of each convolution, for the first view."""
  nets = _nets(args, 'exact')

  def run(shifts, online):
    """Adds a shift to each output; its gradient is that of the output."""
    seen: dict[str, Any] = {}

    def watch(call, inputs, keywords, context):
      y = call(*inputs, **keywords)
      name = '/'.join(context.module.path)
      if not isinstance(context.module, Conv) or name in seen:
        return y
      seen[name] = (inputs[0], y, context.module.variables['params']['kernel'])
      return y + shifts.get(name, 0)
    with nn.intercept_methods(watch):
      loss, _ = _loss(nets, online, views)
    return loss, seen

  strides: dict[str, int] = {}
  shapes = jax.eval_shape(lambda: run({}, online))[1]
  for name, (x, y, _) in shapes.items():
    strides[name] = -(-x.shape[1] // y.shape[1])
  shifts = {name: jnp.zeros(y.shape) for name, (_, y, _) in shapes.items()}
  d_y, seen = jax.jit(jax.grad(run, has_aux=True))(shifts, online)
  # Rounded to float32 first, so that errors exclude that of the inputs.
  layers = {}
  for name, stride in strides.items():
    x, kernel, d = _as(jnp.float64, _as(
        jnp.float32, (seen[name][0], seen[name][2], d_y[name])))
    layers[name] = Layer(x, kernel, d, stride)
  return {_title(name, layer): layer for name, layer in layers.items()}


def _title(name: str, layer: Layer) -> str:
  """'layer2_0/conv1 64>128/2 at 32'."""
  _, _, channels, features = layer.kernel.shape
  return (f'{name.removeprefix("backbone/")} {channels}>{features}'
          f'/{layer.stride} at {layer.x.shape[1]}')


@functools.partial(jax.jit, static_argnames=('stride', 'exact'))
def _parts(x: Array, kernel: Array, d_y: Array, *, stride: int, exact: bool
           ) -> tuple[Array, ...]:
  """Returns the output, and the gradients of the input and of the kernel."""
  y, back = jax.vjp(
      lambda *a: convolution.conv(*a, stride, len(kernel) // 2, exact),
      x, kernel)
  return (y, *back(d_y))


def _layer_errors(layer: Layer, ways: list[str]) -> Errors:
  """Returns the error of each part of a layer, for each way."""
  x, kernel, d_y, stride = layer
  exact = _parts(x, kernel, d_y, stride=stride, exact=True)
  x, kernel, d_y = _as(jnp.float32, (x, kernel, d_y))
  found = {way: _torch_parts(x, kernel, d_y, stride) if way == 'PyTorch'
           else _parts(x, kernel, d_y, stride=stride, exact=way == 'exact')
           for way in ways}
  return {part: {way: [error(found[way][i], exact[i])] for way in ways}
          for i, part in enumerate(PARTS)}


def _torch_parts(x: Array, kernel: Array, d_y: Array,
                 stride: int) -> tuple[np.ndarray, ...]:
  """Does `_parts` in PyTorch."""
  import torch

  def tensor(array, *axes):
    return torch.tensor(np.asarray(array)).permute(axes).contiguous()
  images, weights = tensor(x, 0, 3, 1, 2), tensor(kernel, 3, 2, 0, 1)
  images.requires_grad_()
  weights.requires_grad_()
  y = torch.nn.functional.conv2d(images, weights, stride=stride,
                                 padding=weights.shape[-1] // 2)
  y.backward(tensor(d_y, 0, 3, 1, 2))
  return (y.detach().permute(0, 2, 3, 1).numpy(),
          images.grad.permute(0, 2, 3, 1).numpy(),
          weights.grad.permute(2, 3, 1, 0).numpy())


def _torch_step(modules: Any, views: list[Array]) -> tuple[Any, PyTree]:
  """Does `_step` in PyTorch, in float32."""
  import torch

  from tests.helpers import torch_fedu
  from tests.helpers import torch_weights
  encoder, predictor = copy.deepcopy(modules)
  x1, x2 = (torch.tensor(np.asarray(x, np.float32)).permute(0, 3, 1, 2)
            .contiguous() for x in views)
  with torch.no_grad():
    z = copy.deepcopy(encoder).train()(x1)
  torch_fedu.loss_fn(encoder, predictor, copy.deepcopy(encoder), x1,
                     x2).backward()
  for parameter in (*encoder.parameters(), *predictor.parameters()):
    parameter.data = parameter.grad
  grads = torch_weights.online_from(encoder, predictor)
  return z.numpy(), (grads.encoder.params, grads.predictor.params)


if __name__ == '__main__':
  main()
