"""The step in PyTorch, in a process of its own.

The process is separate, so that the threads of PyTorch and XLA do not compete.
"""

import argparse
import copy
import multiprocessing.connection
import os
import time

import torch

from tests.helpers import torch_fedu


def nets(args: argparse.Namespace):
  """Makes encoder and predictor with PyTorch's initial weights, seed 0."""
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
  """Answers requests of the benchmark until it sends 'stop'.

  A memory format is answered with the loss and weights of one step, 'time' with
  the seconds of all steps.

  Args:
    pipe: the connection to the benchmark.
    args: the benchmark's flags; `peer` says whether the step is compiled.
    views: for each step, a pair of arrays [B, 3, H, W] f32.
    rate: the optimiser's learning rate.
    decay: the factor of the old target in its moving average.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  if device == 'cpu':
    torch.set_num_threads(len(os.sched_getaffinity(0)))
  # Fast settings: kernels chosen by trial, and TF32, as in JAX.
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  if args.dtype == 'bfloat16':  # forward pass and loss only, as PyTorch advises
    torch_fedu.loss_fn = torch.autocast(device, torch.bfloat16)(
        torch_fedu.loss_fn)
  if args.peer == 'compile':
    torch_fedu.loss_fn = torch.compile(torch_fedu.loss_fn)

  def make(memory_format):
    """Makes a step and the modules that it trains."""
    encoder, predictor = nets(args)
    modules = encoder, predictor, copy.deepcopy(encoder)
    for module in modules:
      module.to(device, memory_format=memory_format)
    optimiser = torch_fedu.make_optimiser(
        encoder, predictor, rate, fused=args.peer == 'fused' or None)
    pairs = [[torch.tensor(x, device=device).to(memory_format=memory_format)
              for x in pair] for pair in views]

    return lambda i: torch_fedu.launch(
        encoder, predictor, modules[2], optimiser, pairs[i][0], pairs[i][1],
        decay), modules

  step, _ = make(torch.channels_last)
  while (asked := pipe.recv()) != 'stop':
    if asked != 'time':
      checked, modules = make(getattr(torch, asked))
      loss = checked(0).item()
      pipe.send((loss, *({name: x.cpu().numpy() for name, x in
                          module.state_dict().items()} for module in modules)))
      continue
    began = time.perf_counter()
    for i in range(len(views)):
      step(i)
    if device == 'cuda':
      torch.cuda.synchronize()
    pipe.send(time.perf_counter() - began)
