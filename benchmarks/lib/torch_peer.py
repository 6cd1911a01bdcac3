"""The peer: the PyTorch rendering of the step, in a process of its own.

Apart, so that neither library's threads wait in the other's way.
"""

import argparse
import copy
import multiprocessing.connection
import os
import time

import torch

from tests.helpers import torch_fedu


def nets(args: argparse.Namespace):
  """Encoder and predictor with PyTorch's own initial weights, seed 0."""
  block, stages = {
      'resnet10': (torch_fedu.Block, (1, 1, 1, 1)),
      'resnet18': (torch_fedu.Block, (2, 2, 2, 2)),
      'resnet50': (torch_fedu.Bottleneck, (3, 4, 6, 3)),
      'resnet6': (torch_fedu.Block, (1, 1))}[args.model]
  torch.manual_seed(0)
  encoder = torch_fedu.Encoder(block, stages, args.width, args.hidden,
                               args.features)
  return encoder, torch_fedu.mlp(args.features, args.hidden, args.features)


def serve(pipe: multiprocessing.connection.Connection,
          args: argparse.Namespace, views: list, rate: float,
          decay: float) -> None:
  """Answers a memory format with a step's loss and weights, 'time' with time.

  Args:
    pipe: to the benchmark.
    args: its flags; `peer` says whether the step is compiled.
    views: for each step a pair of arrays [B, 3, H, W] f32.
    rate: the optimiser's learning rate.
    decay: of the target's moving average.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  if device == 'cpu':
    torch.set_num_threads(len(os.sched_getaffinity(0)))
  # What a careful user sets: kernels by trial, and TF32, as JAX has it.
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  if args.dtype == 'bfloat16':  # for the loss alone, as PyTorch advises
    torch_fedu.loss_fn = torch.autocast(device, torch.bfloat16)(
        torch_fedu.loss_fn)
  if args.peer == 'compile':
    torch_fedu.loss_fn = torch.compile(torch_fedu.loss_fn)

  def make(memory_format):
    """A step, and the modules that it trains."""
    encoder, predictor = nets(args)
    modules = encoder, predictor, copy.deepcopy(encoder)
    for module in modules:
      module.to(device, memory_format=memory_format)
    optimiser = torch_fedu.make_optimiser(
        encoder, predictor, rate, fused=args.peer == 'fused' or None)
    pairs = [[torch.tensor(x, device=device).to(memory_format=memory_format)
              for x in pair] for pair in views]

    return lambda i: torch_fedu.step(
        encoder, predictor, modules[2], optimiser, pairs[i][0], pairs[i][1],
        decay), modules

  step, _ = make(torch.channels_last)
  while (asked := pipe.recv()) != 'stop':
    if asked != 'time':
      checked, modules = make(getattr(torch, asked))
      loss = checked(0)
      pipe.send((loss, *({name: x.cpu().numpy() for name, x in
                          module.state_dict().items()} for module in modules)))
      continue
    began = time.perf_counter()
    for i in range(len(views)):
      step(i)  # returns a number, so the device is done with the loss
    if device == 'cuda':
      torch.cuda.synchronize()
    pipe.send(time.perf_counter() - began)
