"""Small arrays are joined, and split again, without a change."""

import jax
import jax.numpy as jnp

from fedu_jax.core import packing
from tests.helpers import small

TREE = {'a': jnp.arange(3.), 'key': jax.random.key(0), 'large': jnp.ones(20),
        'none': (), 'count': jnp.int32(2), 'b': jnp.ones((2, 2), jnp.bfloat16),
        'c': jnp.full((1, 3), 5.)}


def test_split_is_the_inverse_of_join():
  pack, unpack = packing.packing(TREE, 10)
  vectors, others = pack(TREE)
  assert {name: len(x) for name, x in vectors.items()} == {
      'float32': 6, 'bfloat16': 4}
  assert len(others) == 3  # the large array, the key, and the integer
  again = unpack((vectors, others))
  assert jax.tree.structure(again) == jax.tree.structure(TREE)
  keys = again.pop('key'), TREE['key']
  small.check_equal(*map(jax.random.key_data, keys))
  small.check_equal(again, {k: v for k, v in TREE.items() if k != 'key'})


def test_nothing_is_joined_without_a_size():
  pack, _ = packing.packing(TREE, None)
  vectors, others = pack(TREE)
  assert not vectors and len(others) == len(jax.tree.leaves(TREE))
