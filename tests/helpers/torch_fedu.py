"""FedU in PyTorch, written from the method's description, as a reference.

It is written from the fact sheet (equations, constants, order of operations)
and not from our JAX code. It is as plain as possible: modules, loops, deep
copies.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
  """The basic block of a CIFAR ResNet."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.outputs = width
    self.shortcut = _shortcut(inputs, width, stride)

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
  """Bottleneck block; the stride is on the 3x3."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(4 * width)
    self.outputs = 4 * width
    self.shortcut = _shortcut(inputs, 4 * width, stride)

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def _shortcut(inputs, outputs, stride):
  if stride == 1 and inputs == outputs:
    return nn.Sequential()
  return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                       nn.BatchNorm2d(outputs))


def mlp(inputs, hidden, outputs):
  return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden),
                       nn.ReLU(), nn.Linear(hidden, outputs))


class Encoder(nn.Module):
  """The backbone, with the projector in place of the classifier."""

  def __init__(self, block, stages, width, hidden, features):
    super().__init__()
    self.stages = stages
    self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    inputs = width
    self.layers = nn.ModuleList()
    for i, depth in enumerate(stages):
      for j in range(depth):
        stride = 2 if i and not j else 1
        self.layers.append(block(inputs, width * 2**i, stride))
        inputs = self.layers[-1].outputs
    self.fc = mlp(inputs, hidden, features)

  def backbone(self, x):
    x = F.relu(self.bn1(self.conv1(x)))
    for layer in self.layers:
      x = layer(x)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)

  def forward(self, x):
    return self.fc(self.backbone(x))


class Client:
  """A client: online encoder and predictor, target encoder, DAPU's flag."""

  def __init__(self, count):
    self.count = count
    self.encoder = self.predictor = self.target = None
    self.use_global = False

  def download(self, encoder, predictor, alias):
    """Takes the server's encoder, and its predictor if the flag says so."""
    if self.encoder is None:
      self.encoder = copy.deepcopy(encoder)
      self.predictor = copy.deepcopy(predictor)
      self.target = self.encoder if alias else copy.deepcopy(encoder)
      return
    if self.target is self.encoder:
      self.target = copy.deepcopy(self.encoder)
    self.encoder = copy.deepcopy(encoder)
    if self.use_global:
      self.predictor = copy.deepcopy(predictor)

  def train(self, views, rate, decay, threshold):
    """Trains on a list of pairs of views; returns losses and divergence."""
    start = copy.deepcopy(self.encoder)
    optimiser = make_optimiser(self.encoder, self.predictor, rate)
    losses = [step(self.encoder, self.predictor, self.target, optimiser, a, b,
                   decay) for a, b in views]
    drift = divergence(start, self.encoder)
    self.use_global = bool(drift < threshold)
    return losses, drift


def make_optimiser(encoder, predictor, rate, *, fused=None):
  return torch.optim.SGD(
      [*encoder.parameters(), *predictor.parameters()], lr=rate, momentum=0.9,
      weight_decay=5e-4, fused=fused)


def loss_fn(encoder, predictor, target, x1, x2):
  """The symmetric loss; online first, then target, view by view."""
  for module in (encoder, predictor, target):
    module.train()
  z1, z2 = encoder(x1), encoder(x2)
  p1, p2 = predictor(z1), predictor(z2)
  with torch.no_grad():
    t1, t2 = target(x1), target(x2)
  def distance(p, t):
    return 2 - 2 * (F.normalize(p, dim=-1) * F.normalize(t, dim=-1)).sum(-1)
  return (distance(p1, t2) + distance(p2, t1)).mean()


def step(*args):
  """One SGD step, then the moving average; returns the loss as a number."""
  return launch(*args).item()


def launch(encoder, predictor, target, optimiser, x1, x2, decay):
  """The same, without waiting for a GPU; the average is of parameters only."""
  optimiser.zero_grad()
  loss = loss_fn(encoder, predictor, target, x1, x2)
  loss.backward()
  optimiser.step()
  with torch.no_grad():
    for old, new in zip(target.parameters(), encoder.parameters()):
      old.lerp_(new, 1 - decay)
  return loss.detach()


def divergence(start, end):
  """The mean L2 distance of weights with conv in their name."""
  before = dict(start.named_parameters())
  distances = [torch.dist(before[name], p) for name, p in
               end.named_parameters() if 'conv' in name and 'weight' in name]
  return sum(distances) / len(distances)


def average(modules, counts):
  """The mean of all parameters and buffers, weighted by counts."""
  mean = copy.deepcopy(modules[0])
  with torch.no_grad():
    states = [module.state_dict() for module in modules]
    mean.load_state_dict({
        name: (sum(s[name] * n for s, n in zip(states, counts)) / sum(counts)
               if value.is_floating_point() else value)
        for name, value in states[0].items()})
  return mean


# --- the rivals ------------------------------------------------------------


def simsiam_loss(encoder, predictor, x1, x2):
  """Half the negative cosine of each direction."""
  z1, z2 = encoder(x1), encoder(x2)
  p1, p2 = predictor(z1), predictor(z2)
  return -(F.cosine_similarity(p1, z2.detach()).mean()
           + F.cosine_similarity(p2, z1.detach()).mean()) / 2


def simclr_loss(encoder, x1, x2, temperature):
  """Each of 2 B views classifies its other view among the 2 B - 1 others."""
  z = F.normalize(encoder(torch.cat([x1, x2])), dim=1)
  count = len(x1)
  total = torch.tensor(0.0)
  for i in range(2 * count):
    others = [j for j in range(2 * count) if j != i]
    logits = torch.stack([z[i] @ z[j] for j in others]) / temperature
    partner = others.index((i + count) % (2 * count))
    total = total + F.cross_entropy(logits[None], torch.tensor([partner]))
  return total / (2 * count)


class MoCo:
  """Query encoder, key encoder and a queue with a pointer."""

  def __init__(self, encoder, queue, decay, temperature):
    self.query, self.key = encoder, copy.deepcopy(encoder)
    self.queue, self.pointer = queue.clone(), 0
    self.decay, self.temperature = decay, temperature

  def loss(self, x1, x2):
    with torch.no_grad():
      for old, new in zip(self.key.parameters(), self.query.parameters()):
        old.copy_(old * self.decay + (1 - self.decay) * new)
    queue = self.queue.clone()
    both, keys = torch.tensor(0.0), list[torch.Tensor]()
    for query_images, key_images in ((x1, x2), (x2, x1)):
      q = F.normalize(self.query(query_images), dim=1)
      with torch.no_grad():
        k = F.normalize(self.key(key_images), dim=1)
      logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1)
      both = both + F.cross_entropy(logits / self.temperature,
                                    torch.zeros(len(q), dtype=torch.long))
      keys.insert(0, k)
    for k in torch.cat(keys):
      self.queue[self.pointer] = k
      self.pointer = (self.pointer + 1) % len(self.queue)
    return both
