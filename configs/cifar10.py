"""FedU on CIFAR-10, non-IID: what the papers state, else what the code has.

  python -m fedu_jax.main --config=configs/cifar10.py --workdir=/tmp/cifar10

The papers (Zhuang et al. 2021, as far as its poster and the author's blog tell;
Zhuang et al. 2022) state five clients that all train, two classes each,
100 rounds, a ResNet-18, and in 2022 five local epochs. Every other value is the
default of the released code (EasyFL fedssl), which appeared after both papers:
batches of 128, SGD, its rate, momentum and decay, the target's 0.99, the
threshold of 0.4, the views, the heads and the evaluation. No command line of a
FedU run was published.

The papers print 78.71 (2021) and 80.52 +- 0.21 (2022, table 3) for FedU on this
data, split and network by linear probe; with which of these values is not said.
Needs an accelerator.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns every field of a run; other configs change some of them."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.rounds = 100
  config.local_epochs = 5
  config.batch_size = 128  # incomplete batches are dropped
  config.clients = 5
  config.cohort = 0  # clients that train each round, drawn anew; 0 = all
  config.sampling = ml_collections.ConfigDict()
  config.sampling.name = 'uniform'  # by_size
  config.participation = ml_collections.ConfigDict()
  config.participation.dropout = 0.0  # how likely an upload is lost
  config.participation.stragglers = 0.0  # how likely a client stops early
  config.participation.least = 0.1  # share of its steps that it then does
  config.devices = 'auto'  # how many share the clients; auto = all there are
  config.devices_per_client = 1  # that share each of its batches
  config.clients_per_device = 0  # that train at once; 0 = the whole cohort
  # Where clients lie that do not train: device, host, disk. auto = device if
  # all train each round or one device has room for them, else host, else disk.
  config.store = 'auto'
  config.distributed = ml_collections.ConfigDict()
  # Process 0's host:port; auto = as JAX finds it (SLURM, TPU); '' = one host.
  config.distributed.coordinator = ''
  config.distributed.processes = 0  # 0 = as JAX finds it
  config.distributed.process = -1  # which of them this is; -1 likewise
  config.distributed.timeout = 100  # seconds until a silent one is lost
  config.execution = 'auto'  # map, one client after the other; vmap, at once

  config.data = ml_collections.ConfigDict()
  # digits, npz:<file>, folder:<dir>, or your own package.module:function
  config.data.source = 'tfds:cifar10'
  config.data.dir = ''  # TFDS's root; '' = TFDS's default
  config.data.image_size = 0  # pixels of a side; 0 = as they come, folder: 32
  config.data.fit = 'crop'  # folder: to a square; pad: black around it
  # folder: bits of images of 16 bits; 0 = as many as a client's largest value
  # needs; 12: 4095 becomes white.
  config.data.depth = 0
  # folder: of transparent pixels and of a colour profile; seen: as a viewer
  # shows them, in sRGB over white.
  config.data.colours = 'stored'
  # folder: names of folders in it that are not read, such as 'test,site 0/old'.
  config.data.leave_out = ''
  config.data.max_examples = 0  # training images, evenly; 0 = all

  config.partition = ml_collections.ConfigDict()
  config.partition.name = 'by_class'  # iid, dirichlet, natural
  config.partition.classes_per_client = 2  # by_class
  config.partition.alpha = 0.1  # dirichlet
  config.partition.min_examples = 10  # dirichlet

  config.model = ml_collections.ConfigDict()
  config.model.name = 'resnet18'  # resnet50, resnet10, resnet6
  config.model.width = 64  # channels of the first stage
  config.model.hidden = 4096  # of projector and predictor
  config.model.features = 2048  # that projector and predictor put out
  config.model.projector_layers = 2  # 1, a linear layer alone; 0, none
  config.model.predictor_layers = 2
  # bfloat16: products and maps between layers; parameters, statistics and the
  # loss stay in float32. For accelerators: a CPU is slower for it.
  config.model.dtype = 'float32'
  # exact: no shortcuts that round more. On a CPU, no Winograd's method: a 3x3
  # layer of full width is then 2e-7 to 4e-7 from float64, not 1e-6 to 4e-6, and
  # slower. On an accelerator, no TF32 or bfloat16 products in the convolutions
  # of float32. See fedu_jax/models/convolution.py.
  config.model.convolution = 'fast'

  config.view = ml_collections.ConfigDict()
  config.view.scale = (0.08, 1.0)  # of the image's area
  config.view.ratio = (3 / 4, 4 / 3)
  config.view.flip = 0.5
  config.view.jitter = 0.8
  config.view.brightness = 0.8
  config.view.contrast = 0.8
  config.view.saturation = 0.8
  config.view.hue = 0.2
  config.view.greyscale = 0.2
  # Colours keep 8 bits after each operation, as the released code's do in PIL;
  # False: fractions are kept, and views are 0.4 % brighter.
  config.view.eight_bit = True

  config.learner = ml_collections.ConfigDict()
  # byol, simsiam, simclr, moco, fedca, fedsc, supervised
  config.learner.name = 'byol'
  config.learner.decay = 0.99  # of the target's moving average
  # In a client's first round the released code's target is the online encoder
  # itself ('alias'); the paper's text reads as a copy that follows ('copy').
  config.learner.first_target = 'alias'
  config.learner.stop_gradient = True  # byol, simsiam
  config.learner.ema = True  # byol; False: only the rule moves the target
  config.learner.temperature = 0.07  # simclr, moco, fedca
  # Keys of a client, moco; configs/methods.py:fedca has fewer.
  config.learner.queue_size = 4096

  config.loss = ml_collections.ConfigDict()
  config.loss.name = 'regression_loss'

  config.optimizer = ml_collections.ConfigDict()  # SGD, made anew each round
  config.optimizer.learning_rate = 0.032  # see schedule
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 5e-4  # on everything, BatchNorm too
  config.optimizer.schedule = 'cosine'  # over the rounds; constant

  config.divergence = ml_collections.ConfigDict()
  # The released code's measure; squared_distance is the paper's, and wants
  # another threshold.
  config.divergence.name = 'conv_distance'

  config.aggregation = ml_collections.ConfigDict()
  config.aggregation.name = 'fedavg'  # fedavg_target, ldawa

  config.rule = ml_collections.ConfigDict()
  # dapu, global_predictor (FedBYOL), local_predictor, fedema, fedema_auto
  config.rule.name = 'dapu'
  config.rule.threshold = 0.4  # dapu: below it, take the global predictor
  config.rule.scale = 0.8  # fedema
  config.rule.tau = 0.7  # fedema_auto
  config.rule.reset_missed = True  # fedema: a client that missed a round
  # Which encoder becomes the global one: online, target, both, neither.
  config.rule.updates = 'online'

  config.evaluation = ml_collections.ConfigDict()
  config.evaluation.every = 10  # rounds between kNN readings; 0 = never
  config.evaluation.alone = 0  # clients to train alone too, to compare
  config.evaluation.knn_neighbours = 200
  config.evaluation.knn_temperature = 0.1
  config.evaluation.probe_epochs = 200
  config.evaluation.probe_batch_size = 2048
  config.evaluation.probe_learning_rate = 3e-3
  config.evaluation.probe_standardise = False  # features before the probe
  config.evaluation.labels_per_class = 0  # for a second, few-label probe
  config.evaluation.few_draws = 10  # of those labels; the mean is reported
  config.evaluation.semi_hidden = 4096  # units of the semi-supervised head
  config.evaluation.semi_epochs = 100

  config.checkpoint = ml_collections.ConfigDict()
  config.checkpoint.every = 5  # rounds
  config.checkpoint.keep = 2
  return config
