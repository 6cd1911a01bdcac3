"""The flags that say of which network a file of weights is."""

from absl import flags

from fedu_jax.encoders import named_network
from fedu_jax.encoders.named_network import Named
from fedu_jax.models import networks
from fedu_jax.models import normalisation

_NETWORK = flags.DEFINE_string(
    'network', '', 'With --encoder_file, for weights by the names of '
    'torchvision or timm that fedu_jax.export did not write: one of '
    f'{", ".join(networks.NETWORKS)}.')
_SIZE = flags.DEFINE_integer(
    'image_size', 0, f"With --network: pixels of an image's side; 0: "
    f"{named_network.SIZE}, or those of a ViT's position embeddings.",
    lower_bound=0)
_NORMALISE = flags.DEFINE_string(
    'normalise', '', 'With --network: '
    f'{" or ".join(normalisation.KINDS)}, as config.model.normalise; if not '
    f'given, {named_network.NORMALISE}.')


def chosen() -> Named:
  """Returns what the flags say of a file of weights."""
  return Named(str(_NETWORK.value), int(_SIZE.value or 0),
               str(_NORMALISE.value))
