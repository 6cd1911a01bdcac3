"""Settings of GPUs in environment variables, which JAX reads when it starts."""

from collections.abc import Mapping, MutableMapping
import os
import pathlib

import jax

from fedu_jax.runtime import accelerators
from fedu_jax.runtime import private_apis
from fedu_jax.runtime.errors import BadInput

_DETERMINISTIC = '--xla_gpu_deterministic_ops=true'
_PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'
# Each is the user's own choice of how JAX takes memory.
_MEMORY = (_PREALLOCATE, 'XLA_CLIENT_MEM_FRACTION',
           'XLA_PYTHON_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_ALLOCATOR')


def share(env: MutableMapping[str, str] = os.environ, *,
          root: pathlib.Path = pathlib.Path('/')) -> str:
  """Lets several processes of this program share a GPU.

  By itself, JAX reserves three quarters of a GPU's memory when it starts, and
  leaves a second process too little.

  Args:
    env: the environment variables.
    root: the root of the file system with dev.

  Returns:
    A line for the user; '' if there is no GPU, or if the user has chosen.
  """
  if accelerators.hardware(root) != 'gpu' or any(
      env.get(name) for name in _MEMORY):
    return ''
  env[_PREALLOCATE] = 'false'
  return ('JAX takes memory of the GPU as it needs it, so that several '
          f'processes can work on this queue; {_PREALLOCATE}=true reserves it '
          'for one')


def make_deterministic(env: MutableMapping[str, str] = os.environ) -> None:
  """Makes all programs of this process give the same bits each time on a GPU.

  XLA's option excludes operations that add in any order, and chooses no kernel
  by its time. As an option of one compilation it would not reach the small
  programs that JAX compiles by itself, so it is set in XLA_FLAGS, which XLA
  reads when JAX starts. Once JAX has started, this changes nothing.

  Args:
    env: the environment variables.
  """
  flags = env.get('XLA_FLAGS', '')
  if _DETERMINISTIC not in flags and (
      not private_apis.backends_are_initialized()):
    env['XLA_FLAGS'] = f'{flags} {_DETERMINISTIC}'.strip()


def see_deterministic(env: Mapping[str, str] = os.environ) -> str:
  """Checks that `make_deterministic` came before JAX started.

  Args:
    env: the environment variables.

  Returns:
    A line for the user on what it means on the devices here.

  Raises:
    BadInput: JAX uses a GPU, and was started without the option.
  """
  if (uses := jax.default_backend()) != 'gpu':
    return f'config.deterministic changes nothing on a {uses.upper()}'
  if _DETERMINISTIC not in env.get('XLA_FLAGS', ''):
    raise BadInput('config.deterministic is True, but JAX has started without '
                   f'it: set XLA_FLAGS={_DETERMINISTIC} before JAX uses a '
                   'device')
  return ('deterministic: operations that add in any order, and the search for '
          'the fastest kernels, are excluded')
