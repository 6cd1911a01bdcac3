"""The GPUs of a process that SLURM started.

Under SLURM, `jax.distributed.initialize` by itself gives each process one GPU,
the one with the number SLURM_LOCALID. That is right only for as many tasks as
GPUs on a node, if each task sees all GPUs of the node. With one task on a node
of eight GPUs, seven would not be used. With --gpus-per-task, a task sees only
its own GPUs, and a number above theirs does not exist.
"""

from collections.abc import Mapping
import re

# JAX takes a process that has all of these as a task that `srun` started.
_STARTED = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS',
            'SLURM_PROCID', 'SLURM_LOCALID')
# Each says that SLURM has bound a task to its own GPUs.
_BOUND = ('SLURM_GPUS_PER_TASK', 'SLURM_NTASKS_PER_GPU', 'SLURM_GPU_BIND')


def local_gpus(env: Mapping[str, str]) -> list[int] | None:
  """Returns the GPUs that this process takes, as numbers among those it sees.

  A process takes all GPUs that it sees if it is the only task on its node, or
  if SLURM has bound it to its own. Otherwise the tasks of a node share its GPUs
  evenly, in the order of SLURM_LOCALID.

  Args:
    env: the environment variables.

  Returns:
    The numbers; [] for all that the process sees; None if `srun` did not start
    it, if JAX_LOCAL_DEVICE_IDS names the GPUs, or if nothing is known of them:
    JAX then chooses.
  """
  if env.get('JAX_LOCAL_DEVICE_IDS') or not all(
      name in env for name in _STARTED):
    return None
  tasks, gpus = tasks_here(env), visible(env)
  if tasks == 1 or _bound(env, gpus) or 0 < gpus < tasks:
    return []
  if not gpus:
    return None
  each, number = gpus // tasks, int(env['SLURM_LOCALID'])
  return list(range(number * each, (number + 1) * each))


def tasks_here(env: Mapping[str, str]) -> int:
  """Returns the number of tasks of this job step on this node.

  SLURM writes tasks by node as `2(x3),1`: two on each of three nodes, then one.
  """
  node = int(env.get('SLURM_NODEID', '0'))
  for name in ('SLURM_STEP_TASKS_PER_NODE', 'SLURM_TASKS_PER_NODE'):
    counts = [int(tasks) for tasks, nodes in re.findall(
        r'(\d+)(?:\(x(\d+)\))?', env.get(name, ''))
              for _ in range(int(nodes or 1))]
    if node < len(counts):
      return counts[node]
  if each := env.get('SLURM_NTASKS_PER_NODE', ''):
    return int(each)
  nodes = env.get('SLURM_STEP_NUM_NODES') or env.get('SLURM_NNODES') or '1'
  return -(-int(env.get('SLURM_NTASKS', '1')) // int(nodes))


def visible(env: Mapping[str, str]) -> int:
  """Returns how many GPUs SLURM lets this process see; 0 if it does not say."""
  return _count(env.get('CUDA_VISIBLE_DEVICES') or env.get('SLURM_STEP_GPUS')
                or env.get('SLURM_JOB_GPUS') or '')


def _bound(env: Mapping[str, str], gpus: int) -> bool:
  """Whether the GPUs that this task sees are its own."""
  if env.get('SLURM_GPU_BIND', '').endswith('none'):
    return False
  return (any(env.get(name) for name in _BOUND)
          or 'gpu' in env.get('SLURM_TRES_PER_TASK', '')
          or gpus < _count(env.get('SLURM_STEP_GPUS', '')))


def _count(names: str) -> int:
  """Counts the names of a list such as `0,1` or `GPU-5d,GPU-6e`."""
  return len([name for name in names.split(',') if name.strip()])
