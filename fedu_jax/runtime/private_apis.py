"""All uses of private names of libraries, each with its reason and its end.

A private name may change with any version of its library. Nothing else in
fedu_jax uses one (`tests/imports_test.py`), so what breaks, breaks here.
"""

from collections.abc import Callable
import ctypes
import signal
from typing import Any, NoReturn


def coordination_client() -> Any:
  """JAX's connection to the coordinator: barriers and a key-value store.

  Private: jax._src.distributed.global_state. jax.distributed has no barrier
  and no key-value store for hosts to say why they end. Seen in JAX 0.10 and
  0.12. Until jax.distributed has both.
  """
  from jax._src import distributed
  return distributed.global_state.client


def coordinator_address() -> str:
  """The coordinator's host:port, '' if no hosts were joined.

  Private: jax._src.distributed.global_state, which is the only place of an
  address that JAX found by itself. Seen in JAX 0.10 and 0.12. Until
  jax.distributed tells it.
  """
  from jax._src import distributed
  return distributed.global_state.coordinator_address or ''


def backends_are_initialized() -> bool:
  """Whether JAX has started a backend. XLA then ignores changed XLA_FLAGS.

  Private: jax._src.xla_bridge.backends_are_initialized. Seen in JAX 0.10 and
  0.12. Until JAX has a setting for XLA's options that reaches all programs.
  """
  from jax._src import xla_bridge
  return xla_bridge.backends_are_initialized()


def on_abort(act: Callable[[], NoReturn] | None) -> None:
  """Calls a function in a thread of this process that aborts.

  JAX calls C's abort() where the coordinator is gone or refuses a host. Its
  own callback before that cannot be Python: jaxlib 0.10 and 0.12 throw
  std::bad_cast. Python's signal handlers would run only after the abort. Until
  jax.distributed raises an exception instead.

  Args:
    act: what ends the process; None, to let it abort.
  """
  global _handler
  libc = ctypes.CDLL(None)
  libc.signal.restype = None
  handler = (ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: act()) if act
             else ctypes.c_void_p(signal.SIG_DFL.value))
  libc.signal(int(signal.SIGABRT), handler)
  _handler = handler


_handler: Any = None  # C keeps no reference to what Python made


def cifar_info(builder: Any) -> Any:
  """Where CIFAR's archive is, and the names of the files in it.

  Private: _cifar_info of TFDS's builders of CIFAR, which ours inherit from.
  Its public names unpack the archive and need TensorFlow to read it. Seen in
  TFDS 4.9.10. Until TFDS prepares CIFAR without TensorFlow.

  Args:
    builder: a builder of CIFAR-10 or CIFAR-100.

  Returns:
    TFDS's CifarInfo: url, prefix, train_files, test_files, label_files,
    label_keys.
  """
  return builder._cifar_info
