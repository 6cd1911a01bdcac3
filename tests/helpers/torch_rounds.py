"""FedU's rounds in PyTorch: rules, ablations, cohorts, schedule.

It is written from the fact sheet (A2 to A11, B1) and not from our JAX code. A
client trains by the loop of `torch_fedu`. This module has the download and the
aggregation, and the variants of a step for the ablations.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from tests.helpers import torch_fedu


class Way(NamedTuple):
  """The choices of a federation; the defaults are FedBYOL's."""
  predictor: str = 'global'  # local, dapu, or with FedEMA's encoder: ema
  updates: str = 'online'  # target, both, neither: what becomes global
  averages: str = 'online'  # target: whose encoder the server averages
  threshold: float = 0.  # dapu's
  scale: float = 0.  # FedEMA's lambda
  tau: float = 0.  # of the auto-scaler: lambda is set after the first round
  reset: bool = True  # FedEMA: who missed the last round takes all (A9)
  alias: bool = True  # A5
  moving_average: bool = True  # False: "no EMA"
  stop_gradient: bool = True


def cosine_rate(rate, round_, rounds):
  """One rate a round (B1)."""
  return 0.5 * rate * (math.cos(math.pi * round_ / rounds) + 1)


class Party:
  """A client of a federation."""

  def __init__(self, count):
    self.count = count
    self.encoder = self.predictor = self.target = None
    self.drift = None
    self.last = None  # the round in which it trained last
    self.scale = None

  def take_everything(self, encoder, predictor):
    self.encoder = copy.deepcopy(encoder)
    self.predictor = copy.deepcopy(predictor)
    self.target = copy.deepcopy(encoder)

  def download(self, encoder, predictor, round_, way):
    """Combines the server's networks with the client's; returns FedEMA's mu."""
    if self.last is None:
      self.take_everything(encoder, predictor)
      if way.alias:
        self.target = self.encoder
      return None
    if self.target is self.encoder:  # from now on a network of its own
      self.target = copy.deepcopy(self.encoder)
    if way.predictor == 'ema':
      return self.approach(encoder, predictor, round_, way)
    if way.updates in ('online', 'both'):
      self.encoder = copy.deepcopy(encoder)
    if way.updates in ('target', 'both'):
      self.target = copy.deepcopy(encoder)
    if way.predictor == 'global' or (
        way.predictor == 'dapu' and self.drift < way.threshold):
      self.predictor = copy.deepcopy(predictor)
    return None

  def approach(self, encoder, predictor, round_, way):
    """FedEMA (A11): parameters move towards the global ones."""
    if way.tau and self.scale is None:
      self.scale = way.tau / self.drift
    distance = (self.scale if way.tau else way.scale) * self.drift
    mu = min(distance, 1.)
    if way.reset and self.last != round_ - 1:
      self.take_everything(encoder, predictor)
      return None
    own, self.encoder = self.encoder, copy.deepcopy(encoder)  # its buffers
    mix(self.encoder, own, encoder, mu)
    own = self.predictor
    self.predictor = copy.deepcopy(own if distance > 0.5 else predictor)
    mix(self.predictor, own, predictor, mu)
    return mu

  def train(self, views, rate, decay, way, round_):
    """Local training (A7, A8) with a new SGD; returns the losses."""
    start = copy.deepcopy(self.encoder)
    optimiser = torch_fedu.make_optimiser(self.encoder, self.predictor, rate)
    losses = [self.step(optimiser, a, b, decay, way) for a, b in views]
    self.drift = torch_fedu.divergence(start, self.encoder).item()
    self.last = round_
    return losses

  def step(self, optimiser, x1, x2, decay, way):
    for module in (self.encoder, self.predictor, self.target):
      module.train()
    z1, z2 = self.encoder(x1), self.encoder(x2)
    p1, p2 = self.predictor(z1), self.predictor(z2)
    with torch.set_grad_enabled(not way.stop_gradient):
      t1, t2 = self.target(x1), self.target(x2)
    def distance(p, t):
      return 2 - 2 * (F.normalize(p, dim=-1) * F.normalize(t, dim=-1)).sum(-1)
    loss = (distance(p1, t2) + distance(p2, t1)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if way.moving_average:
      with torch.no_grad():
        for old, new in zip(self.target.parameters(),
                            self.encoder.parameters()):
          old.copy_(decay * old + (1 - decay) * new)
    return loss.item()


def mix(into, own, other, mu):
  """into's parameters become mu * own + (1 - mu) * other."""
  with torch.no_grad():
    for new, a, b in zip(into.parameters(), own.parameters(),
                         other.parameters()):
      new.copy_(mu * a + (1 - mu) * b)


class Federation:
  """Server and clients; the server averages as the way says (A6)."""

  def __init__(self, encoder, predictor, counts, way):
    self.encoder, self.predictor, self.way = encoder, predictor, way
    self.parties = [Party(n) for n in counts]
    self.round = 0

  def run(self, cohort, views, rate, rounds, decay):
    """One round of the clients in `cohort`.

    Args:
      cohort: their numbers.
      views: for each of them a list of pairs, one a step.
      rate: the first round's learning rate.
      rounds: of the whole run.
      decay: of the target's moving average.

    Returns:
      The mean loss of each of them, and FedEMA's mu or None.
    """
    way, members = self.way, [self.parties[k] for k in cohort]
    now = cosine_rate(rate, self.round, rounds)
    mus = [party.download(self.encoder, self.predictor, self.round, way)
           for party in members]
    losses = [party.train(own, now, decay, way, self.round)
              for party, own in zip(members, views)]
    counts = [party.count for party in members]
    self.encoder = torch_fedu.average(
        [party.target if way.averages == 'target' else party.encoder
         for party in members], counts)
    self.predictor = torch_fedu.average(
        [party.predictor for party in members], counts)
    self.round += 1
    return [sum(own) / len(own) for own in losses], mus
