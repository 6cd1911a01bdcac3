"""FedU on CIFAR-10, non-IID, with the values of the papers and released code.

  python -m fedu_jax.main --config=configs/cifar10.py --workdir=/tmp/cifar10

Needs an accelerator. The papers (Zhuang et al. 2021, known here by its poster
and the author's blog; Zhuang et al. 2022) state five clients that all train,
two classes for each client, 100 rounds, a ResNet-18, and in 2022 five local
epochs. Every other value is the default of the released code (EasyFL fedssl),
which appeared after both papers: batches of 128, SGD with its rate, momentum
and decay, the target's 0.99, the threshold of 0.4, the views, the heads and the
evaluation. No command line of a FedU run was published.

For FedU on this data, split and network, by linear probe, the papers print
78.71 (2021) and 80.52 +- 0.21 (2022, table 3). They do not say with which of
these values.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns all fields of a run with their defaults."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.rounds = 100
  config.local_epochs = 5
  config.batch_size = 128  # incomplete batches are dropped
  config.clients = 5
  config.cohort = 0  # clients that train in a round, drawn each time; 0 = all
  config.sampling = ml_collections.ConfigDict()
  config.sampling.name = 'uniform'  # by_size
  config.participation = ml_collections.ConfigDict()
  config.participation.dropout = 0.0  # probability that an upload is lost
  config.participation.stragglers = 0.0  # probability that a client stops early
  config.participation.least = 0.1  # smallest share of steps of such a client
  config.devices = 'auto'  # devices that share the clients; auto = all
  config.devices_per_client = 1  # devices that share each batch of a client
  config.clients_per_device = 0  # clients that train at once; 0 = the cohort
  # Where the clients' states and images are kept: device, host or disk. auto =
  # device if all train each round or one device has room for all, else host if
  # it has room, else disk.
  config.store = 'auto'
  config.distributed = ml_collections.ConfigDict()
  # Process 0's host:port; auto = as JAX finds it (SLURM, TPU); '' = one host.
  config.distributed.coordinator = ''
  config.distributed.processes = 0  # number of processes; 0 = as JAX finds it
  config.distributed.process = -1  # this process's number; -1 = as JAX finds it
  config.distributed.timeout = 100  # seconds until a silent process is lost
  config.execution = 'auto'  # map, one client after the other; vmap, at once

  config.data = ml_collections.ConfigDict()
  # digits, npz:<file>, folder:<dir>, or your own package.module:function
  config.data.source = 'tfds:cifar10'
  config.data.dir = ''  # TFDS's root; '' = TFDS's default
  # Pixels of a side; 0 = the images' own, and 32 for folder:<dir>.
  config.data.image_size = 0
  # folder: how an image becomes square; pad = with black around it.
  config.data.fit = 'crop'
  # folder: the bits of images of 16 bits; with 12, 4095 becomes white. 0 = as
  # many as the largest value of a client needs.
  config.data.depth = 0
  # folder: colours as in the file; seen = as a viewer shows transparent pixels
  # and colour profiles, in sRGB over white.
  config.data.colours = 'stored'
  # folder: names of folders in it that are not read, such as 'test,site 0/old'.
  config.data.leave_out = ''
  # Training images to keep, evenly over owners and classes; 0 = all.
  config.data.max_examples = 0

  config.partition = ml_collections.ConfigDict()
  config.partition.name = 'by_class'  # iid, dirichlet, natural
  config.partition.classes_per_client = 2  # by_class
  config.partition.alpha = 0.1  # dirichlet
  config.partition.min_examples = 10  # dirichlet

  config.model = ml_collections.ConfigDict()
  config.model.name = 'resnet18'  # resnet50, resnet10, resnet6
  config.model.width = 64  # channels of the first stage
  config.model.hidden = 4096  # hidden units of projector and predictor
  config.model.features = 2048  # output units of projector and predictor
  config.model.projector_layers = 2  # 1 = one linear layer; 0 = no projector
  config.model.predictor_layers = 2
  # bfloat16 is for products and for the maps between layers; parameters,
  # statistics and the loss stay in float32. A CPU is slower with it.
  config.model.dtype = 'float32'
  # exact = without methods that round more. On a CPU, without Winograd's method
  # a 3x3 layer of full width is slower and differs from float64 by 2e-7 to
  # 4e-7, not by 1e-6 to 4e-6. On an accelerator, float32 convolutions use no
  # TF32 or bfloat16 products. See fedu_jax/models/convolution.py.
  config.model.convolution = 'fast'

  config.view = ml_collections.ConfigDict()
  config.view.scale = (0.08, 1.0)  # crop's area / image's area
  config.view.ratio = (3 / 4, 4 / 3)
  config.view.flip = 0.5
  config.view.jitter = 0.8
  config.view.brightness = 0.8
  config.view.contrast = 0.8
  config.view.saturation = 0.8
  config.view.hue = 0.2
  config.view.greyscale = 0.2
  # Colours keep 8 bits after each operation, as in the released code (PIL).
  # False = fractions are kept, and views are 0.4 % brighter.
  config.view.eight_bit = True

  config.learner = ml_collections.ConfigDict()
  # byol, simsiam, simclr, moco, fedca, fedsc, supervised
  config.learner.name = 'byol'
  config.learner.decay = 0.99  # factor of the old target in its moving average
  # The target in a client's first round. In the released code it is the online
  # encoder itself ('alias'); the paper describes a copy that follows ('copy').
  config.learner.first_target = 'alias'
  config.learner.stop_gradient = True  # byol, simsiam
  config.learner.ema = True  # byol; False = only the rule changes the target
  config.learner.temperature = 0.07  # simclr, moco, fedca
  # moco: keys of a client; fedca: entries of the dictionary, fewer in
  # configs/methods.py.
  config.learner.queue_size = 4096

  config.loss = ml_collections.ConfigDict()
  config.loss.name = 'regression_loss'

  config.optimizer = ml_collections.ConfigDict()  # SGD, a new one each round
  config.optimizer.learning_rate = 0.032  # see schedule
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 5e-4  # on everything, BatchNorm too
  config.optimizer.schedule = 'cosine'  # over the rounds; constant

  config.divergence = ml_collections.ConfigDict()
  # The released code's measure. squared_distance is the paper's; it needs
  # another threshold.
  config.divergence.name = 'conv_distance'

  config.aggregation = ml_collections.ConfigDict()
  config.aggregation.name = 'fedavg'  # fedavg_target, ldawa

  config.rule = ml_collections.ConfigDict()
  # dapu, global_predictor (FedBYOL), local_predictor, fedema, fedema_auto
  config.rule.name = 'dapu'
  config.rule.threshold = 0.4  # dapu: global predictor below this divergence
  config.rule.scale = 0.8  # fedema
  config.rule.tau = 0.7  # fedema_auto
  # fedema: a client that missed a round takes the global networks.
  config.rule.reset_missed = True
  # Which encoder becomes the global one: online, target, both, neither.
  config.rule.updates = 'online'

  config.evaluation = ml_collections.ConfigDict()
  config.evaluation.every = 10  # rounds between kNN scores; 0 = none
  config.evaluation.alone = 0  # clients that also train alone, to compare
  config.evaluation.knn_neighbours = 200
  config.evaluation.knn_temperature = 0.1
  config.evaluation.probe_epochs = 200
  config.evaluation.probe_batch_size = 2048
  config.evaluation.probe_learning_rate = 3e-3
  # Whether the probe gets features of mean 0 and deviation 1.
  config.evaluation.probe_standardise = False
  config.evaluation.labels_per_class = 0  # of a second probe; 0 = no such probe
  config.evaluation.few_draws = 10  # draws of those labels; the mean is shown
  config.evaluation.semi_hidden = 4096  # units of the semi-supervised head
  config.evaluation.semi_epochs = 100

  config.checkpoint = ml_collections.ConfigDict()
  config.checkpoint.every = 5  # rounds between checkpoints
  config.checkpoint.keep = 2  # checkpoints that stay
  return config
