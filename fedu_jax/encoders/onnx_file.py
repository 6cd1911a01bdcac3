"""Encoders as ONNX: pixels in, as they are, and features out.

The input `images` is uint8 (or uint16) [N, H, W, C] with a free N. Scaling and
the normalisation of `model.normalise` are nodes of the graph. The output
`features` is float32 [N, D]. The record of the encoder is in the model's
metadata, under `fedu_jax`.

We write the graph ourselves. jax2onnx, which converts any JAX function, asks
for an older Orbax than ours, and brings a dozen packages.
"""

import numpy as np
import onnx
from onnx import helper

from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders import onnx_graph
from fedu_jax.encoders import onnx_vit
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.models import torch_names
from fedu_jax.models.resnet import ResNet
from fedu_jax.models.vit import ViT
from fedu_jax.runtime.errors import BadInput

_OPSET, _IR = 17, 8  # what ONNX Runtime has read since 1.12 (2022)


def to_bytes(encoder: Encoder) -> bytes:
  """Returns the contents of an ONNX file.

  Raises:
    BadInput: the network is neither a ResNet nor a ViT of ours.
  """
  about = encoder.about
  backbone = getattr(encoder.module, 'backbone', None)
  if not isinstance(backbone, (ResNet, ViT)):
    raise BadInput(
        'ONNX is written for our ResNets and ViTs, and this is '
        f'{about.model.get("name")!r}: export to .stablehlo, which takes any')
  graph = onnx_graph.Graph(torch_names.to_torch(encoder.variables))
  x = graph.add('Cast', 'images', to=onnx.TensorProto.FLOAT)
  x = graph.add('Div', x, graph.constant('largest', np.float32(about.largest)))
  for kind, name in ('Sub', 'mean'), ('Div', 'deviation'):
    if constants := about.constants:
      x = graph.add(kind, x, graph.constant(
          name, np.array(constants[name], np.float32)))
  x = graph.add('Transpose', x, perm=[0, 3, 1, 2])
  if isinstance(backbone, ViT):
    x = onnx_vit.vit(graph, x, backbone.depth, backbone.heads)
  else:
    x = onnx_graph.resnet(graph, x, tuple(backbone.stages), backbone.stem)
  if about.projector:
    x = onnx_graph.mlp(graph, x, 'projector')
  graph.nodes.append(helper.make_node('Identity', [x], ['features']))
  model = helper.make_model(
      helper.make_graph(
          graph.nodes, 'encoder',
          [helper.make_tensor_value_info(
              'images', helper.np_dtype_to_tensor_dtype(np.dtype(about.dtype)),
              ['n', *about.shape])],
          [helper.make_tensor_value_info(
              'features', onnx.TensorProto.FLOAT, ['n', about.features])],
          graph.weights),
      opset_imports=[helper.make_opsetid('', _OPSET)], ir_version=_IR,
      producer_name='fedu_jax')
  helper.set_model_props(model, {'fedu_jax': about_lib.to_json(about)})
  onnx.checker.check_model(model, full_check=True)
  return bytes(model.SerializeToString())
