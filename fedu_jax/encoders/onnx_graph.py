"""ONNX graphs of our ResNets and projectors, by PyTorch's names of weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

_EPSILON = 1e-5  # of BatchNorm


class Graph:
  """Nodes and weights, added one after the other.

  Attributes:
    nodes: the nodes.
    weights: the constants.
  """

  def __init__(self, arrays: Mapping[str, np.ndarray]):
    """Begins a graph.

    Args:
      arrays: the weights of the network by PyTorch's names.
    """
    self.nodes: list[onnx.NodeProto] = []
    self.weights: list[onnx.TensorProto] = []
    self._arrays, self._known = arrays, set[str]()

  def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
    """Adds a node with one output; returns the output's name."""
    name = f'{kind}_{len(self.nodes)}'
    self.nodes.append(helper.make_node(
        kind, list(inputs), [name], name=name, **attributes))
    return name

  def constant(self, name: str, value: Any) -> str:
    """Adds an array, and returns its name."""
    if name not in self._known:
      self._known.add(name)
      self.weights.append(numpy_helper.from_array(np.asarray(value), name))
    return name

  def weight(self, name: str) -> str:
    """Adds a weight of the network, and returns its name."""
    return self.constant(name, self._arrays[name])

  def array(self, name: str) -> np.ndarray:
    """Returns a weight of the network."""
    return self._arrays[name]

  def has(self, name: str) -> bool:
    """Whether the network has a weight of this name."""
    return name in self._arrays

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a weight."""
    return self._arrays[name].shape

  def convolve(self, x: str, name: str, stride: int) -> str:
    """Adds a convolution that is padded by half its kernel."""
    size = self.shape(f'{name}.weight')[2]
    return self.add('Conv', x, self.weight(f'{name}.weight'),
                    kernel_shape=[size] * 2, strides=[stride] * 2,
                    pads=[size // 2] * 4)

  def batch_norm(self, x: str, name: str) -> str:
    """Adds BatchNorm with the tracked statistics."""
    return self.add('BatchNormalization', x, *(self.weight(f'{name}.{x}')
                    for x in ('weight', 'bias', 'running_mean', 'running_var')),
                    epsilon=_EPSILON)

  def dense(self, x: str, name: str) -> str:
    """Adds a dense layer for [N, D]."""
    return self.add('Gemm', x, self.weight(f'{name}.weight'),
                    self.weight(f'{name}.bias'), transB=1)


def resnet(graph: Graph, x: str, stages: tuple[int, ...], stem: str) -> str:
  """Adds a ResNet: [N, C, H, W] -> [N, D].

  Args:
    graph: the graph, with the weights.
    x: the name of the maps.
    stages: the number of blocks of each stage.
    stem: 'cifar' or 'imagenet'.
  """
  large = stem == 'imagenet'
  x = graph.add('Relu', graph.batch_norm(
      graph.convolve(x, 'conv1', 2 if large else 1), 'bn1'))
  if large:
    x = graph.add('MaxPool', x, kernel_shape=[3, 3], strides=[2, 2],
                  pads=[1] * 4)
  for i, depth in enumerate(stages):
    for j in range(depth):
      x = _block(graph, x, f'layer{i + 1}.{j}', 2 if i and not j else 1)
  return graph.add('Flatten', graph.add('GlobalAveragePool', x), axis=1)


def _block(graph: Graph, x: str, name: str, stride: int) -> str:
  """Adds a block of two convolutions, or of three; the first 3x3 strides."""
  count = 3 if graph.has(f'{name}.conv3.weight') else 2
  y = x
  for i in range(1, count + 1):
    y = graph.batch_norm(
        graph.convolve(y, f'{name}.conv{i}', stride if i == count - 1 else 1),
        f'{name}.bn{i}')
    if i < count:
      y = graph.add('Relu', y)
  if graph.has(f'{name}.downsample.0.weight'):
    x = graph.batch_norm(graph.convolve(x, f'{name}.downsample.0', stride),
                         f'{name}.downsample.1')
  return graph.add('Relu', graph.add('Add', y, x))


def mlp(graph: Graph, x: str, name: str) -> str:
  """Adds a projector of two layers, one or none: [N, D] -> [N, F]."""
  if graph.has(f'{name}.linear1.weight'):
    x = graph.add('Relu', graph.batch_norm(
        graph.dense(x, f'{name}.linear1'), f'{name}.bn'))
  if graph.has(f'{name}.linear2.weight'):
    x = graph.dense(x, f'{name}.linear2')
  return x
