"""ONNX graphs of our vision transformers, see `onnx_graph`."""

import numpy as np

from fedu_jax.encoders.onnx_graph import Graph

_EPSILON = 1e-6  # of LayerNorm


def vit(graph: Graph, x: str, depth: int, heads: int) -> str:
  """Adds a ViT: [N, C, H, W] -> [N, D].

  Args:
    graph: the graph, with the weights.
    x: the name of the images.
    depth: the number of blocks.
    heads: the number of heads of attention.
  """
  channels, _, patch, _ = graph.shape('patch_embed.proj.weight')
  x = graph.add('Conv', x, graph.weight('patch_embed.proj.weight'),
                graph.weight('patch_embed.proj.bias'),
                kernel_shape=[patch] * 2, strides=[patch] * 2)
  x = _reshape(graph, x, 0, channels, -1)
  x = graph.add('Transpose', x, perm=[0, 2, 1])
  # A row of zeros in front becomes the class token with its place.
  x = graph.add('Pad', x, graph.constant(
      'first_row', np.array([0, 1, 0, 0, 0, 0])))
  places = graph.array('pos_embed').copy()
  places[:, :1] += graph.array('cls_token')
  x = graph.add('Add', x, graph.constant('places', places))
  for i in range(depth):
    name = f'blocks.{i}'
    x = graph.add('Add', x, _attention(
        graph, _norm(graph, x, f'{name}.norm1'), f'{name}.attn', heads))
    x = graph.add('Add', x, _token_mlp(
        graph, _norm(graph, x, f'{name}.norm2'), f'{name}.mlp'))
  return _norm(graph, _row(graph, x, 0, axis=1), 'norm')


def _attention(graph: Graph, x: str, name: str, heads: int) -> str:
  """Adds attention for tokens [N, L, D]."""
  channels = graph.shape(f'{name}.proj.weight')[0]
  each = channels // heads
  three = _reshape(graph, _dense(graph, x, f'{name}.qkv'),
                   0, 0, 3, heads, each)
  three = graph.add('Transpose', three, perm=[2, 0, 3, 1, 4])
  q, k, v = (_row(graph, three, i, axis=0) for i in range(3))
  q = graph.add('Mul', q, graph.constant('scale', np.float32(each**-0.5)))
  shares = graph.add('Softmax', graph.add(
      'MatMul', q, graph.add('Transpose', k, perm=[0, 1, 3, 2])), axis=-1)
  y = graph.add('Transpose', graph.add('MatMul', shares, v),
                perm=[0, 2, 1, 3])
  return _dense(graph, _reshape(graph, y, 0, 0, channels), f'{name}.proj')


def _token_mlp(graph: Graph, x: str, name: str) -> str:
  """Adds a dense layer, GELU, and a dense layer."""
  x = _dense(graph, x, f'{name}.fc1')
  # ONNX has Gelu only since opset 20.
  y = graph.add('Erf', graph.add(
      'Mul', x, graph.constant('root', np.float32(0.5**0.5))))
  y = graph.add('Add', y, graph.constant('one', np.float32(1)))
  half = graph.add('Mul', x, graph.constant('half', np.float32(0.5)))
  return _dense(graph, graph.add('Mul', half, y), f'{name}.fc2')


def _norm(graph: Graph, x: str, name: str) -> str:
  return graph.add(
      'LayerNormalization', x, graph.weight(f'{name}.weight'),
      graph.weight(f'{name}.bias'), axis=-1, epsilon=_EPSILON)


def _dense(graph: Graph, x: str, name: str) -> str:
  """Adds a dense layer for [N, L, D]."""
  kernel = graph.constant(f'{name}.kernel', graph.array(f'{name}.weight').T)
  return graph.add('Add', graph.add('MatMul', x, kernel),
                   graph.weight(f'{name}.bias'))


def _reshape(graph: Graph, x: str, *shape: int) -> str:
  """Adds a change of shape; 0 keeps an axis."""
  text = '_'.join(map(str, shape))
  return graph.add('Reshape', x, graph.constant(
      f'shape_{text}', np.array(shape)))


def _row(graph: Graph, x: str, i: int, axis: int) -> str:
  return graph.add('Gather', x, graph.constant(f'index_{i}', np.array(i)),
                   axis=axis)
