"""JSON of arrays and of numbers that are not finite."""

import json

import jax.numpy as jnp
import numpy as np

from fedu_jax.runtime import json_files


def test_what_json_cannot_hold_becomes_what_it_can(tmp_path):
  path = tmp_path / 'x.json'
  json_files.write(path, {
      'rows': np.arange(3), 'on a device': jnp.arange(2), 'pair': (1, 'a'),
      'flags': np.array([True]), 'scalar': np.int64(7),
      'not finite': [float('nan'), np.float32('inf'), -np.inf]})
  assert json.loads(path.read_text()) == {
      'rows': [0, 1, 2], 'on a device': [0, 1], 'pair': [1, 'a'],
      'flags': [True], 'scalar': 7, 'not finite': [None, None, None]}


def test_a_float32_is_written_in_its_own_digits():
  """0.1 and not 0.10000000149; both are read back as the same float32."""
  assert repr(json_files.plain(np.float32(0.1))) == '0.1'
  draw = np.random.RandomState(0).randn(1000).astype(np.float32)
  again = np.array(json.loads(json.dumps(json_files.plain(draw))), np.float32)
  np.testing.assert_array_equal(again, draw)
