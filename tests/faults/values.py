"""Configs and flags to attack with: wrong values, and extreme valid ones."""

BIG = '1' * 31

# Python, as it stands in a config file. Of a type, all of them are wrong...
WRONG = {
    int: ["'text'", "''", 'None', '[3]', '{}', 'True', '1.5', "float('nan')",
          "float('inf')", '-2', '-10**30', '10**30', '10**400', "b'1'",
          '(1, 2)', 'object()', '1j', 'np.ones(3)', 'np.int64(-5)'],
    # (ConfigDict itself makes True a number here, and refuses 10**400.)
    float: ["'text'", 'None', '[0.5]', "float('nan')", "float('inf')",
            "-float('inf')", '-1', '-1e-30', '1e308', '0.5j', '{}',
            'np.ones(2)', 'object()', '(0.5,)'],
    str: ['1', 'None', '[]', 'True', "b'auto'", "'no such thing'", '0.5',
          "'x' * 10_000", "('auto',)", 'np.ones(2)'],
    bool: ['0', '1', "'True'", 'None', '0.0', '[]'],
    tuple: ['3', '()', '(1,)', '(0.5, 0.6, 0.7)', '[0.1]', "('a', 'b')",
            "(float('nan'), 1.0)", '(1.0, 0.5)', '(0.0, 1.0)', '(-1.0, 1.0)',
            "(0.5, float('inf'))", 'None', '(1e308, 1e308)', '(True, True)',
            "'ab'"]}
# ... and likewise on the command line.
WRONG_FLAGS = {
    int: ['two', '1.5', '-2', '1e3', '', 'nan', 'True', 'None', BIG,
          '-' + BIG, '9' * 5000, '[1]', '1 2'],
    float: ['x', 'nan', 'inf', '-inf', '-1', '1e308', '', 'None', '[0.5]',
            '1e999', '0,5'],
    str: ['no such thing', 'auto2', '-1', '\x1b[31m', "'auto'"],
    bool: ['maybe', '2', '', '0.0'],
    tuple: ['x', '(1,)', '()', '(0.5,0.6,0.7)', '(nan,1)', "('a','b')", '(1',
            '(1.0,0.5)', '(-1.0,1.0)', '(0.0,1.0)', '(1e308,1e308)',
            '__import__("os").abort()']}
# Fields of texts that any text may stand in, or that are paths.
FREE = {'data.dir', 'data.leave_out'}
# Of fields, what else is wrong; as on the command line.
ALSO_WRONG = {
    'data.source': ['npz', 'npz:', 'folder:', 'tfds:', 'digits:x', ':f', 'a.:f',
                    'a b:f', 'a:f:g', '1:f', 'a:f()', 'C:/data', '/data',
                    'no_such_module:f', 'math:tau', 'math:sqrt', 'os:abort.x'],
    'data.leave_out': [',', 'a,,b', '/', 'a, /'],
    'devices': ['cuda', 'GPU', 'gpu:', 'gpu:0', ':4', 'auto:4', '4:gpu'],
    'data.depth': ['1', '7', '17', '32'],
    'data.fit': ['', 'Pad', 'stretch'], 'data.colours': ['', 'sRGB'],
    'data.channels': ['0', '2', '4', '1.0'], 'data.keep_depth': ['2', 'x'],
    'data.client_depth': ['', '0', '10', '-1', 'Leaf', '1.5'],
    'data.test': ['folder', 'folder:', 'csv:', 'npz:x', 'x'],
    'data.window': ['', 'x', '40', '40,0', '40,-1', 'nan,nan', '1,2,3'],
    'model.precision': ['', 'TF32', 'highest', 'bfloat16'],
    'model.convolution': ['', 'Exact', 'winograd'],
    'model.stem': ['', 'ImageNet', '7x7'],
    'model.init_from': ['resnet18.pth', 'x.pt', 'x.npz', '/'],
    'model.normalise': ['', 'True', 'ImageNet']}
# Whole numbers and others for which 0 is wrong.
POSITIVE = {
    'rounds', 'local_epochs', 'batch_size', 'clients', 'devices_per_client',
    'distributed.timeout', 'partition.classes_per_client', 'model.width',
    'model.hidden', 'model.features', 'learner.queue_size', 'checkpoint.every',
    'checkpoint.keep', 'participation.least', 'partition.alpha',
    'learner.temperature', 'evaluation.knn_neighbours',
    'evaluation.knn_temperature', 'evaluation.probe_epochs',
    'evaluation.probe_batch_size', 'evaluation.probe_learning_rate',
    'evaluation.few_draws', 'evaluation.semi_hidden',
    'evaluation.semi_epochs'}
# Values that are right, though extreme: by field, as on the command line.
LEGAL = {
    'seed': ['0', str(2**32 - 1)], 'rounds': ['1', str(10**9)],
    'local_epochs': ['1', '10000'], 'batch_size': ['2', str(2**20)],
    'clients': ['1', str(10**6)], 'cohort': ['0', '1', '5'],
    'participation.dropout': ['0', '1'], 'participation.stragglers': ['0', '1'],
    'participation.least': ['1e-9', '1'], 'devices': [
        '1', '1000000', 'auto', 'cpu', 'cpu:2'],
    'clients_per_device': ['0', '1000000'], 'distributed.timeout': ['1'],
    'data.image_size': ['0', '1', '4096'], 'data.depth': ['0'],
    'data.fit': ['crop'], 'data.colours': ['stored'], 'data.leave_out': [''],
    'data.channels': ['1', '3'], 'data.keep_depth': ['False', 'True'],
    'data.client_depth': ['1'], 'data.test': [''], 'data.window': ['file'],
    'data.max_examples': ['0', '1', str(10**9)], 'data.dir': ['', '/nowhere'],
    'partition.classes_per_client': ['1'],
    'partition.alpha': ['1e-300', '1000000'],
    'partition.min_examples': ['0'],
    'model.width': ['1', '4096'], 'model.hidden': ['1', str(2**17)],
    'model.features': ['1'], 'model.projector_layers': ['0', '1', '2'],
    'model.predictor_layers': ['0', '1', '2'],
    'model.precision': ['default', 'tensorfloat32', 'float32'],
    'model.convolution': ['fast', 'exact'], 'model.stem': ['cifar'],
    'model.frozen': ['stem', 'layer1'], 'model.patch': ['0'],
    'model.normalise': ['none', 'imagenet'], 'model.init_from': [''],
    'view.eight_bit': ['True', 'False'],
    'view.scale': ['(1e-6,1.0)', '(1.0,1.0)'],
    'view.ratio': ['(0.001,1000.0)', '(1.0,1.0)'],
    'view.flip': ['0', '1'], 'view.jitter': ['0', '1'],
    'view.brightness': ['0', '1000'], 'view.hue': ['0', '0.5'],
    'view.greyscale': ['0', '1'], 'view.vertical_flip': ['0', '1'],
    'view.blur': ['(0,1)', '(1.0,0.1)'], 'view.solarise': ['(0.0,0.2)'],
    'view.blur_sigma': ['(0.001,1000.0)', '(2,2)'],
    'learner.decay': ['0', '1'],
    'learner.temperature': ['0.001', '1000000'], 'learner.queue_size': ['1'],
    'learner.ema': ['True', 'False'],
    'optimizer.learning_rate': ['0', '1000000', '1e-320'],
    'optimizer.momentum': ['0', '1'], 'optimizer.weight_decay': ['0'],
    'rule.threshold': ['0', '1e30'], 'rule.scale': ['0', '1000000'],
    'rule.tau': ['0'], 'evaluation.every': ['0', str(10**9)],
    'evaluation.alone': ['0', '5'],
    'evaluation.knn_neighbours': ['1', str(10**9)],
    'evaluation.knn_temperature': ['0.02'],
    'evaluation.labels_per_class': ['0', str(10**9)],
    'checkpoint.every': [str(10**9)], 'checkpoint.keep': ['1', str(10**9)]}
# The same of what only folders have.
LEGAL_OF_FOLDERS = {
    'data.depth': ['8', '16'], 'data.fit': ['pad'], 'data.colours': ['seen'],
    'data.leave_out': ['a', 'a, b/c', '*', '[!a]'],
    'data.client_depth': ['2', '9', 'leaf'],
    'data.window': ['full', '40,400', '-600.5,1'],
    'partition.name': ['iid', 'natural']}

# Flags that cannot stand together, each right by itself; and words that the
# refusal must hold.
TOGETHER = [
    (['cohort=6'], 'cohort is 6'),
    (['batch_size=33', 'devices_per_client=2'], 'batch_size'),
    (['devices=2', 'devices_per_client=4'], 'devices_per_client'),
    (['devices=gpu:2', 'devices_per_client=4'], 'devices_per_client'),
    (['evaluation.alone=6'], 'evaluation.alone'),
    (['model.precision=tensorfloat32', 'model.convolution=exact'],
     'convolution is exact'),
    (['model.precision=tensorfloat32', 'model.dtype=bfloat16'],
     'dtype is bfloat16'),
    (['model.patch=4'], 'no patches'),
    (['model.name=vit_tiny'], 'squared_distance'),
    (['model.stem=imagenet', 'data.image_size=8'], '32 pixels or more'),
    (['learner.name=moco', 'learner.queue_size=100'], 'multiple of 64'),
    (['learner.name=fedca'], 'all three or none'),
    (['aggregation.name=fedsc', 'rule.name=fedsc'], 'all three or none'),
    (['learner.name=fedca', 'aggregation.name=fedca', 'rule.name=fedca',
      'learner.queue_size=4'], 'adds to the dictionary'),
    # (An npz may have owners: it is looked at first.)
    (['data.source=digits', 'partition.name=natural'], 'needs owners'),
    (['data.source=tfds:cifar10', 'partition.name=natural'], 'needs owners'),
    (['data.source=tests.faults.own_sources:asks'],
     'needs a field config.data.more'),
    (['data.source=tests.faults.own_sources:asks_by_place'],
     'needs the argument more'),
    (['data.source=folder:/nowhere'], 'needs labels'),
    (['data.source=folder:/nowhere', 'partition.name=dirichlet'],
     'needs labels'),
    (['data.source=folder:/nowhere', 'partition.name=natural',
      'learner.name=supervised'], 'needs labels'),
    (['distributed.processes=2'], 'no coordinator'),
    (['distributed.process=0'], 'no coordinator'),
    (['distributed.coordinator=127.0.0.1:1', 'distributed.processes=2',
      'distributed.process=2'], '0 to 1'),
    (['view.scale=(0.9,0.2)'], 'view.scale'),
    (['view.blur=(0.5,1.5)'], 'view.blur'),
    (['rule.name=math:sqrt'], 'rule.name'),
    (['rule.name=os:getcwd'], 'cannot be called as (client, server)'),
    (['loss.name=fedu_jax.learners.losses:nt_xent'], 'temperature')]
_OWN = 'data.source=tests.faults.own_sources:'
# The same, where the data (digits) or the devices must be known for it: nothing
# is written all the same.
TOGETHER_LATE = [
    (['model.frozen=layer2'], 'can be frozen up to stem, layer1'),
    (['model.projector_layers=0'], 'config.model.features to 4'),
    (['partition.classes_per_client=11'], 'has 10 classes'),
    (['batch_size=128'], 'fewer than a batch'),
    (['clients=1000'], 'fewer than a batch'),
    (['data.max_examples=2000'], 'data has 1438'),
    (['partition.name=dirichlet', 'partition.alpha=1e-9'], 'partition.alpha'),
    (['partition.name=dirichlet', 'partition.min_examples=1000'],
     'partition.alpha'),
    (['model.stem=imagenet'], '32 pixels or more'),
    (['model.init_from=/nowhere/x.safetensors'], 'no file'),
    (['model.name=vit_tiny', 'divergence.name=squared_distance',
      'model.patch=3'], 'no whole number of patches'),
    (['devices=1000'], 'JAX sees'), (['devices=cpu:1000'], 'JAX sees'),
    (['devices=gpu'], 'JAX uses the CPU'),
    (['devices_per_client=32'], 'devices'),
    (['store=device', 'clients_per_device=1'], 'store to auto'),
    (['clients_per_device=1', 'learner.name=fedca', 'rule.name=fedca',
      'aggregation.name=fedca'], 'a whole cohort at once'),
    (['learner.name=simsiam', 'model.projector_layers=0',
      'model.predictor_layers=1'], 'config.model.features to 4'),
    (['learner.name=supervised', 'model.predictor_layers=1',
      'model.projector_layers=0'], 'config.model.features to 10'),
    (['model.hidden=131072', 'model.features=131072'], 'GB'),
    (['model.width=4096', 'model.name=resnet50'], 'GB'),
    (['learner.name=moco', 'learner.queue_size=9999936',
      'model.features=16384'], 'GB'),
    (['data.image_size=4096', 'data.max_examples=0'], 'GB'),
    (['data.fit=pad'], 'data.fit is set'),
    (['data.depth=12'], 'data.depth is set'),
    (['data.colours=seen'], 'data.colours is set'),
    (['data.leave_out=test'], 'data.leave_out is set'),
    (['data.client_depth=leaf'], 'data.client_depth is set'),
    (['data.test=folder:/nowhere'], 'data.test folder: there is no folder'),
    ([f'{_OWN}owned', 'data.fit=pad'], 'data.fit is set'),
    ([f'{_OWN}owned', 'data.max_examples=0', 'partition.name=by_class'],
     'partition.name=natural'),
    ([f'{_OWN}owned', 'data.max_examples=0', 'partition.name=natural'],
     'config.clients=3'),
    ([f'{_OWN}owned', 'data.max_examples=0', 'partition.name=natural',
      'clients=3', 'learner.name=supervised'], 'needs labels'),
    ([f'{_OWN}bare', 'data.max_examples=0', 'partition.name=natural'],
     'partition.name=iid'),
    ([f'{_OWN}bare', 'data.max_examples=0', 'partition.name=dirichlet'],
     'needs labels')]

UNKNOWN = ['ronds=2', 'rule.nam=dapu', 'Rounds=2', 'rule.name.x=1', 'rule=5',
            'rounds.x=1', 'a.b.c=1', '=3', '.=1', 'rounds..x=1', 'rounds']
UNKNOWN_FIELDS = [
    ('ronds', '2'), ('rule.treshold', '0.4'), ('rule.patience', '3'),
    ('sectoin', 'ml_collections.ConfigDict()'), ('rule', '5'),
    ('rounds', 'ml_collections.ConfigDict({"x": 1})'),
    ('view', "ml_collections.ConfigDict({'scale': (0.5, 1.0)})"),
    ('evaluation', 'None'), ('5', '5')]
# Config files by name: their text, and words of the refusal.
FILES = {
    'absent': (None, 'is no file'), 'empty': ('', 'get_config'),
    'no_function': ('x = 1', 'get_config'),
    'syntax': ('def get_config(:', 'SyntaxError'),
    'raises': ('def get_config(): 1 / 0', ', line 1: division by zero'),
    'none': ('def get_config(): return None', 'returns nothing'),
    'number': ('def get_config(): return 5', 'returns int, not a ConfigDict'),
    'dict': ("def get_config(): return {'rounds': 3}",
             'returns dict, not a ConfigDict'),
    'bare': ('import ml_collections\n'
             'def get_config(): return ml_collections.ConfigDict()',
             'the config lacks'),
    'imports': ('import no_such_module_anywhere', ', line 1: No module named'),
    'circle': ('from configs import smoke\n'
               'def get_config():\n  c = smoke.get_config()\n'
               '  c.rule.name = c.get_ref("rule") if False else 3\n  return c',
               ', line 4: '),
    'placeholder': ('from configs import smoke\n'
                    'from ml_collections import config_dict\n'
                    'def get_config():\n  c = smoke.get_config()\n'
                    '  with c.ignore_type():\n    c.model.width = '
                    'config_dict.required_placeholder(int)\n  return c',
                    'model.width'),
    'binary': ('\x00\x01\x02', 'in the config')}
ANYWHERE = [[], ['stray'], ['--confg=x'], ['--workdir'], ['--config'],
             ['--flagfile=/nowhere/flags'], ['--config=/nowhere.py'],
             ['--config=configs'], ['--config='], ['--config=configs/smoke.py'],
             ['--config=configs/methods.py:nothing', '--workdir=/tmp/x'],
             ['--config=configs/smoke.py:extra', '--workdir=/tmp/x'],
             ['--config=configs/smoke.py', '--workdir=/dev/null/x',
              '--config.rounds=0'], ['--verbosity=loud'],
             ['--config=smok', '--workdir={new}'],
             ['--config=gs://bucket/smoke.py', '--workdir={new}'],
             *(['--config=smoke', x] for x in (
                 '--workdir=', '--workdir= ', '--workdir=gs://bucket/run',
                 '--workdir=~nobody-at-all/run', '--workdir={new}/[x]',
                 '--workdir={new}' + '/x' * 2100)),
             *(['--config=smoke', '--workdir={new}', x] for x in (
                 '--extend=maybe', '--extent',
                 '--config.data.source=npz:gs://bucket/x',
                 '--config.data.source=folder:~nobody-at-all/x',
                 '--config.data.source=npz:/nowhere/x.npz', '--source=digits',
                 '--data_dir=/nowhere'))]
EVALUATE = [[], ['--workdir=/nowhere'], ['--workdir={run}', '--protocol='],
             ['--workdir={run}', '--protocol=liner'],
             ['--workdir={run}', '--protocol=linear:3'],
             ['--workdir={run}', '--encoder=../..'],
             ['--workdir={run}', '--encoder=alone-1'],
             ['--workdir={run}', '--encoder=alone7'],
             ['--workdir={run}', '--encoder='], ['--workdr=x'], ['stray'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:-1'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:inf'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:nan'],
             ['--workdir={run}', '--encoder=untrained',
              '--protocol=semi:0.5:evenly'],
             ['--workdir={run}', '--encoder=untrained',
              '--protocol=transfer:npz:/nowhere'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=transfer'],
             *(['--workdir={run}', '--encoder=untrained', f'--source={x}']
               for x in ('nothing', 'npz:', 'npz:/nowhere', 'folder:/nowhere',
                         'npz:gs://bucket/x', 'no_such_module:f',
                         'tests.faults.own_sources:bare',
                         'tests.faults.own_sources:asks')),
             ['--workdir='], ['--workdir=gs://bucket/run'], ['--extend'],
             ['--workdir={broken}', '--protocol=knn'],
             ['--workdir={list}', '--protocol=knn']]
EXPERIMENTS = [[], ['nothing'], ['predictor'], ['predictor', '--seeds=0'],
                ['predictor', '--seeds=-1'], ['predictor', '--seeds=x'],
                ['predictor', '--seeds=' + BIG],
                ['predictor', '--scale=huge', '--workdir={run}'],
                ['predictor', 'protocol'], ['--workdir={run}'],
                ['predictor', '--seeds_together=0'],
                ['predictor', '--workdir=gs://bucket/x'],
                ['predictor', '--workdir='], ['--extend', 'predictor']]
