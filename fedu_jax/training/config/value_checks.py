"""Checks of single values of a config, by which `fields` declares its own.

Each number has an upper bound, so that it does not overflow int32 or float32,
and so that sizes that fit no machine are refused at once. Checks that need the
data or the devices are made later, where these are known.
"""

from collections.abc import Callable
import functools
import re
from typing import Any

from fedu_jax.data import dicom_files
from fedu_jax.data import folder_listing
from fedu_jax.data import labelled_files
from fedu_jax.data import sources
from fedu_jax.models import torch_names
from fedu_jax.runtime import accelerators

Check = Callable[[Any], str]  # '' for a right value; else what it must be

MANY = 10**9  # the largest count, which fits int32
CLIENTS = 10**6  # the most clients; each has a row in tables and files
UNITS = 2**17  # the most units of a layer; more are likely a typing error
FACTOR = 1e6  # the largest factor of a float32


def _number(kind: type, low: float, high: float, above: bool = False) -> Check:
  def check(value):
    right = isinstance(value, (int, float) if kind is float else int)
    # The comparisons are False for NaN.
    if isinstance(value, bool) or not right or not (
        (low < value if above else low <= value) and value <= high):
      noun = 'a whole number' if kind is int else 'a number'
      return f'{noun} {"above" if above else "from"} {low:g} to {high:.10g}'
    return ''
  return check


def text(value: Any) -> str:
  """Allows a text that is not empty."""
  return '' if isinstance(value, str) and value else 'a text'


def folder(value: Any) -> str:
  """Allows any text, as the path of a folder."""
  return '' if isinstance(value, str) else "the path of a folder, or ''"


def one_of(*choices: Any) -> Check:
  """Makes a check that allows these values, and no other type."""
  return lambda value: (
      '' if type(value) is type(choices[0]) and value in choices
      else 'one of ' + ', '.join(map(str, choices)))


def pair(low: float, high: float) -> Check:
  """Makes a check that allows two numbers within bounds."""
  def check(value):
    right = (isinstance(value, tuple) and len(value) == 2
             and not any(map(_number(float, low, high), value)))
    return '' if right else f'two numbers from {low:g} to {high:g}, as (1, 0.1)'
  return check


def interval(low: float, high: float) -> Check:
  """Makes a check that allows two numbers in order, within bounds."""
  within = pair(low, high)
  def check(value):
    right = not within(value) and value[0] <= value[1]
    return '' if right else f'two numbers (low, high) from {low:g} to {high:g}'
  return check


count = functools.partial(_number, int)
real = functools.partial(_number, float)
flag = one_of(False, True)


def _digits(text: str, most: int) -> bool:
  return len(text) < 10 and text.isdecimal() and 0 < int(text) <= most


def devices(value: Any) -> str:
  """Allows auto, a number as a text (flags cannot change a type), or a kind.
  """
  kind, colon, most = (value if isinstance(value, str) else ' ').partition(':')
  right = (kind in accelerators.KINDS and (not colon or _digits(most, CLIENTS))
           or not colon and (kind == 'auto' or _digits(kind, CLIENTS)))
  return '' if right else (
      f'auto, or a whole number from 1 to {CLIENTS} as a text, or cpu, gpu or '
      'tpu, or such as gpu:4')


def coordinator(value: Any) -> str:
  """Allows '', 'auto', or a host and a port."""
  host, _, port = value.rpartition(':') if isinstance(value, str) else '   '
  right = isinstance(value, str) and (
      value in ('', 'auto') or host and _digits(port, 2**16 - 1))
  return '' if right else "'', auto, or the host:port of process 0"


def names(value: Any) -> str:
  """Allows names of folders, separated by commas."""
  right = isinstance(value, str) and (
      not value or all(x.strip(' /') for x in value.split(',')))
  return '' if right else "names of folders, such as 'test,val', or ''"


def stage(value: Any) -> str:
  """Allows the name of a backbone's stage, or ''."""
  right = isinstance(value, str) and re.fullmatch(
      r'|stem|layer[1-9]\d?|blocks\.\d\d?', value)
  return '' if right else "stem, or such as layer1 or blocks.0, or ''"


def client_depth(value: Any) -> str:
  """Allows how deep clients' folders are: leaf, or a number as a text."""
  right = isinstance(value, str) and (
      value == folder_listing.LEAF or _digits(value, 9))
  return '' if right else 'leaf, or a whole number from 1 to 9 as a text'


def window(value: Any) -> str:
  """Allows a window of DICOM files."""
  right = isinstance(value, str) and (
      value in dicom_files.WINDOWS or dicom_files.window_of(value))
  return '' if right else (
      "file, full, or a centre and a width from 1 up, such as '40,400'")


def labelled(value: Any) -> str:
  """Allows what `labelled_files.listed` reads."""
  right = isinstance(value, str) and labelled_files.known(value)
  return '' if right else "folder:<dir>, csv:<file>, or ''"


def safetensors(value: Any) -> str:
  """Allows the path of a safetensors file, or ''; says how to convert others.
  """
  if isinstance(value, str) and (not value or value.endswith('.safetensors')):
    return ''
  wanted = "the path of a .safetensors file, or ''"
  if isinstance(value, str) and value.endswith(torch_names.PICKLES):
    wanted += f': {torch_names.CONVERT}'
  return wanted


def source(value: Any) -> str:
  """Allows what `sources.known` reads."""
  return '' if isinstance(value, str) and sources.known(value) else (
      sources.CHOICES)
