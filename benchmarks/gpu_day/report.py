"""A short text on what the records say, beside the aims."""

from collections.abc import Iterator

from benchmarks.gpu_day import sizes
from benchmarks.gpu_day.records import Record
from benchmarks.gpu_day.records import Records

PEAK, EAGER, COMPILED, MINUTES = 0.35, 3.0, 1.0, 15.0  # the aims
_STEPS = ('peer', 'executions', 'dtypes')


def text(records: Records) -> str:
  """Returns the text; a figure that is not there yet is left out."""
  lines = [*_stages(records), *_device(records), *_steps(records),
           *_aims(records), *_rest(records)]
  return '\n'.join(lines) + '\n'


def _stages(records: Records) -> Iterator[str]:
  last: dict[str, Record] = {}
  for record in records.read():
    if record['kind'] in ('begin', 'end', 'cut', 'failed', 'skipped') and not (
        last.get(record['stage'], {}).get('kind') == 'end'):
      last[record['stage']] = record
  for stage in sizes.STAGES:
    if stage.name in last:
      record = last[stage.name]
      detail = record.get('why') or (
          f'{record["took"]} s' if 'took' in record else '')
      kind = {'begin': 'begun, and lost in a cut',
              'end': 'done'}.get(record['kind'], record['kind'])
      yield f'{stage.name:<12}{kind:<10}{detail}'


def _device(records: Records) -> Iterator[str]:
  if row := records.row('device', 'device'):
    yield f'device      {row["device"]}; {row["driver"]}'
    yield '            ' + ', '.join(
        f'{name} {version}' for name, version in row['versions'].items())
  for row in records.rows('peaks'):
    yield f'{row["name"]:<20}{row["median"]:.4g} {row["unit"]}'


def _steps(records: Records) -> Iterator[str]:
  for stage in _STEPS:
    for row in records.rows(stage):
      if 'images_per_second' in row:
        share = row.get('of_bfloat16_peak')
        yield f'{stage}: {row["name"]:<36}' + (
            f'{row["images_per_second"]:10.0f} images/s') + (
                f', {100 * share:.1f} % of the bfloat16 products' if share
                else '')
      else:
        yield f'{stage}: {row["name"]:<36}{row.get("why", "")}'


def _aims(records: Records) -> Iterator[str]:
  ours = records.row('peer', 'ours, one client, bfloat16')
  if share := ours.get('of_bfloat16_peak'):
    yield _aim('share of the measured bfloat16 products', share, PEAK)
  for kind, aim in (('eager', EAGER), ('compile', COMPILED)):
    theirs = records.row('peer', f'PyTorch, {kind}, bfloat16')
    if ours and 'images_per_second' in theirs:
      yield _aim(f'times the speed of PyTorch, {kind}',
                 ours['images_per_second'] / theirs['images_per_second'], aim)
  if each := records.row('memory', 'round').get('round_seconds'):
    yield (f'100 rounds of this length would take {100 * each / 60:.1f} '
           'minutes, without start and scores: an extrapolation of one round; '
           f'the aim is {MINUTES:.0f}')


def _aim(what: str, value: float, aim: float) -> str:
  reached = 'reached' if value >= aim else 'missed'
  return f'{what}: {value:.3g}; the aim is {aim:g}: {reached}'


def _rest(records: Records) -> Iterator[str]:
  for row in records.rows('same'):
    yield (f'equal runs, {row["name"]}: metrics '
           f'{"equal" if row["metrics_equal"] else "differ"}, state '
           f'{"equal" if row["state_equal"] else "differs"}')
  if row := records.row('memory', 'round'):
    used = row['used_bytes']
    yield (f'memory of the round: program {row["program_bytes"] / 1e9:.3g} GB, '
           f'planned {row["planned_bytes"] / 1e9:.3g}' + (
               f', used {used / 1e9:.3g}' if used else ', use unknown'))
  if row := records.row('profile', 'profile'):
    yield (f'a step: {row["kernels_a_step"]:.0f} kernels, busy for '
           f'{1e3 * row["busy_seconds_a_step"]:.2f} ms')
  for stage in ('paper', 'rival'):
    if row := records.row(stage, 'run'):
      planned = records.row(stage, 'schedule')['rounds']
      scores = (row.get('scores') or {}).get('federation')
      yield (f'{stage}: {row["rounds_done"]} of {planned} rounds' + (
          f' of {row["local_epochs"]} epochs' if 'local_epochs' in row else '')
          + (f'; {scores}' if scores else '; not scored yet'))
