"""The GPUs that a process takes, by SLURM's variables."""

import pytest

from fedu_jax.runtime import slurm

STARTED = {'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'node[1-2]',
           'SLURM_PROCID': '3', 'SLURM_LOCALID': '0', 'SLURM_NTASKS': '1'}
FOUR = {'CUDA_VISIBLE_DEVICES': '0,1,2,3'}


@pytest.mark.parametrize('env, gpus', [
    # The user has said it.
    ({'SLURM_LOCALID': '1', 'JAX_LOCAL_DEVICE_IDS': '2'} | FOUR, None),
    # srun --nodes=2 --ntasks-per-node=1: all GPUs of the node.
    ({'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2',
      'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}, []),
    ({'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2',
      'SLURM_STEP_TASKS_PER_NODE': '1(x2)'} | FOUR, []),
    ({'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2',
      'SLURM_STEP_NUM_NODES': '2'} | FOUR, []),
    # The second node has a task less than the first.
    ({'SLURM_LOCALID': '0', 'SLURM_NODEID': '1', 'SLURM_NTASKS': '3',
      'SLURM_STEP_TASKS_PER_NODE': '2,1'} | FOUR, []),
    ({'SLURM_LOCALID': '1', 'SLURM_NODEID': '0', 'SLURM_NTASKS': '3',
      'SLURM_STEP_TASKS_PER_NODE': '2,1'} | FOUR, [2, 3]),
    # One task a GPU, and all tasks of a node see all of its GPUs.
    ({'SLURM_LOCALID': '3', 'SLURM_NTASKS': '8', 'SLURM_NODEID': '1',
      'SLURM_STEP_TASKS_PER_NODE': '4(x2)'} | FOUR, [3]),
    ({'SLURM_LOCALID': '3', 'SLURM_NTASKS': '8',
      'SLURM_NTASKS_PER_NODE': '4'} | FOUR, [3]),
    ({'SLURM_LOCALID': '3', 'SLURM_NTASKS': '8', 'SLURM_NTASKS_PER_NODE': '4',
      'SLURM_GPU_BIND': 'none', 'SLURM_GPUS_PER_TASK': '1'} | FOUR, [3]),
    # One task a GPU, and each sees its own only: GPU 3 does not exist there.
    ({'SLURM_LOCALID': '3', 'SLURM_NTASKS': '4', 'SLURM_GPUS_PER_TASK': '1',
      'CUDA_VISIBLE_DEVICES': '0'}, []),
    ({'SLURM_LOCALID': '3', 'SLURM_NTASKS': '4',
      'CUDA_VISIBLE_DEVICES': 'GPU-6e'}, []),
    ({'SLURM_LOCALID': '1', 'SLURM_NTASKS': '2',
      'SLURM_TRES_PER_TASK': 'cpu=4,gres/gpu=2',
      'CUDA_VISIBLE_DEVICES': '0,1'}, []),
    ({'SLURM_LOCALID': '1', 'SLURM_NTASKS': '2', 'SLURM_STEP_GPUS': '0,1,2,3',
      'CUDA_VISIBLE_DEVICES': '0,1'}, []),
    # Several tasks, and nothing is known of GPUs: JAX takes SLURM_LOCALID.
    ({'SLURM_LOCALID': '1', 'SLURM_NTASKS': '2'}, None)])
def test_the_gpus_of_a_task(env, gpus):
  assert slurm.local_gpus(STARTED | env) == gpus


@pytest.mark.parametrize('name', STARTED)
def test_what_a_batch_script_starts_by_itself_is_left_to_jax(name):
  """There, SLURM_LOCALID is 0 for each process of a node."""
  env = STARTED | FOUR
  assert slurm.local_gpus(env) == []
  del env[name]
  assert slurm.local_gpus(env) is None
