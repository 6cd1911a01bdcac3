"""The flags of a plan. Its compiler, a process of its own, takes the same."""

from absl import flags

from fedu_jax.data import sources
from fedu_jax.plan import chip_files
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import host_memory
from fedu_jax.training import forecast
from fedu_jax.training.config import config_flag

CONFIG = config_flag.define()
CHIPS = flags.DEFINE_integer(
    'chips', 0, 'Devices; 0: config.devices, or those here, or one --chip.',
    lower_bound=0)
CHIP = flags.DEFINE_string(
    'chip', '', "Plan for a chip by that chip's own compiler, which needs no "
    f'chip: one of {", ".join(chip_files.names())}, or the path of a file that '
    'describes one.')
EXAMPLES = flags.DEFINE_integer(
    'examples', 0, 'Training images; needed if the data is not digits or '
    'CIFAR.', lower_bound=0)
IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 0, 'Pixels of a side; needed as --examples is, if '
    'data.image_size is 0.', lower_bound=0)
CLASSES = flags.DEFINE_integer(
    'classes', 0, 'Classes; needed as --examples is, if images are split by '
    'class.', lower_bound=0)
HOST_MEMORY = flags.DEFINE_float(
    'host_memory', 0, 'Bytes of the host; 0: of this one.', lower_bound=0)
MEMORY = flags.DEFINE_float(
    'memory', 0, 'Bytes of a device; 0: of one here, or of --chip.',
    lower_bound=0)
RATE = flags.DEFINE_float(
    'rate', 0, 'Operations a second that a device sustains in training; 0: '
    "measured here, by some steps of the config's.", lower_bound=0)
# The defaults are about 10 Gbit/s, 10 Mbit/s, and a PCIe slot.
NETWORK = flags.DEFINE_float(
    'network', 1.25e9, 'Bytes a second between devices, and into the server.',
    lower_bound=1)
UPLINK = flags.DEFINE_float(
    'uplink', 1.25e6, 'Bytes a second that a real client sends.', lower_bound=1)
LINK = flags.DEFINE_float(
    'link', 4e9, 'Bytes a second between the host, or its disk, and its '
    'devices.', lower_bound=1)
HLO = flags.DEFINE_string(
    'hlo', '', 'With --chip: a file for the text of the compiled round.')


def chip_count() -> int:
  """The number of chips to plan for."""
  return CHIPS.value or accelerators.wanted(CONFIG.value.devices).most or 1


def data() -> sources.Dataset:
  """Makes data of the shapes that the flags say."""
  return forecast.data_of(
      CONFIG.value, examples=EXAMPLES.value, image_size=IMAGE_SIZE.value,
      classes=CLASSES.value)


def machine(chip: chip_files.Chip) -> forecast.Machine:
  """The machine to plan for, with chips that need not be here."""
  return forecast.Machine(chip_count(), MEMORY.value or chip.usable,
                          HOST_MEMORY.value or host_memory.host_bytes(),
                          backend=chip.compiler, device=chip.name)
