"""All fields of a config: name, default, allowed values and explanation.

Each is declared once, those of the section `data` in `data_fields`. The
defaults are those of the released code (EasyFL fedssl) for FedU on CIFAR-10,
see configs/cifar10.py. Sections with a name, such as `rule`, also have the
keyword arguments of a researcher's own function as fields; these are not here.
"""

from typing import Any

from fedu_jax.core import precision
from fedu_jax.core import rounds
from fedu_jax.core import update_rules
from fedu_jax.data import dataset
from fedu_jax.learners.byol import FIRST_TARGETS
from fedu_jax.models import convolution
from fedu_jax.models import normalisation
from fedu_jax.models import resnet
from fedu_jax.training.config import data_fields
from fedu_jax.training.config.field import Field
from fedu_jax.training.config.value_checks import CLIENTS
from fedu_jax.training.config.value_checks import coordinator
from fedu_jax.training.config.value_checks import count
from fedu_jax.training.config.value_checks import devices
from fedu_jax.training.config.value_checks import FACTOR
from fedu_jax.training.config.value_checks import flag
from fedu_jax.training.config.value_checks import interval
from fedu_jax.training.config.value_checks import MANY
from fedu_jax.training.config.value_checks import one_of
from fedu_jax.training.config.value_checks import pair
from fedu_jax.training.config.value_checks import real
from fedu_jax.training.config.value_checks import safetensors
from fedu_jax.training.config.value_checks import stage
from fedu_jax.training.config.value_checks import text
from fedu_jax.training.config.value_checks import UNITS
from fedu_jax.training.engine import feeding

SCHEDULES = ('cosine', 'constant')  # of the learning rate, over the rounds

_ALL = (
    Field('seed', 0, count(0, 2**32 - 1), 'seed of all random draws'),
    Field('rounds', 100, count(1, MANY), 'rounds of the federation'),
    Field('local_epochs', 5, count(1, 10**4),
          "passes over a client's images in a round"),
    Field('batch_size', 128, count(2, 2**20),
          'images of a step; incomplete batches are dropped'),
    Field('clients', 5, count(1, CLIENTS), 'clients of the federation'),
    Field('cohort', 0, count(0, CLIENTS),
          'clients that train in a round, drawn each time; 0 = all'),
    Field('sampling.name', 'uniform', text,
          'how a cohort is drawn: uniform, by_size'),
    Field('participation.dropout', 0.0, real(0, 1),
          'probability that an upload is lost'),
    Field('participation.stragglers', 0.0, real(0, 1),
          'probability that a client stops early'),
    Field('participation.least', 0.1, real(0, 1, above=True),
          'smallest share of steps of a client that stops early'),
    Field('devices', 'auto', devices,
          'devices that share the clients; auto = all. gpu, tpu and cpu name a '
          'kind, without which the run is refused; gpu:4 = four of that kind'),
    Field('devices_per_client', 1, count(1, CLIENTS),
          'devices that share each batch of a client'),
    Field('clients_per_device', 0, count(0, CLIENTS),
          'clients that train at once; 0 = the cohort'),
    Field('deterministic', False, flag,
          'on a GPU: whether a program gives the same bits each time, as on a '
          'CPU. It excludes operations that add in any order and the search '
          'for the fastest kernels, which costs speed', before=False),
    Field('store', 'auto', one_of('auto', 'device', 'host', 'disk'),
          "where the clients' states and images are kept. auto = device if all "
          'train each round or one device has room for all, else host if it '
          'has room, else disk'),
    Field('feed', 'auto', one_of(*feeding.FEEDS),
          "how a client's images come to its device. whole = all at once; "
          'chunks = those of some steps, while it trains on those before; auto '
          '= whole if a client fits with all its images. The bits are the same',
          before='auto'),
    Field('chunk_steps', 0, count(0, MANY),
          'steps of a chunk of images; 0 = by the free memory, at most 2 GiB',
          before=0),
    Field('distributed.coordinator', '', coordinator,
          "host:port of process 0; auto = as JAX finds it (SLURM, TPU); '' = "
          'one host'),
    Field('distributed.processes', 0, count(0, CLIENTS),
          'number of processes; 0 = as JAX finds it'),
    Field('distributed.process', -1, count(-1, CLIENTS),
          "this process's number; -1 = as JAX finds it"),
    Field('distributed.timeout', 100, count(1, 10**6),
          'seconds until a silent process is lost'),
    Field('execution', 'auto', one_of(*rounds.EXECUTIONS),
          'map = one client after the other; vmap = at once; auto = map, but '
          'vmap on a GPU where launches of kernels would take longest'),
    *data_fields.FIELDS,
    Field('partition.name', 'by_class', text,
          'who owns which image: by_class, iid, dirichlet, natural'),
    Field('partition.classes_per_client', 2, count(1, dataset.MOST_CLASSES),
          'by_class: classes of a client'),
    Field('partition.alpha', 0.1, real(0, FACTOR, above=True),
          'dirichlet: concentration; the smaller, the less even'),
    Field('partition.min_examples', 10, count(0, MANY),
          'dirichlet: the fewest images of a client'),
    Field('model.name', 'resnet18', text,
          'encoder: resnet18, resnet34, resnet50, resnet10, resnet6, vit_tiny, '
          'vit_small'),
    Field('model.width', 64, count(1, 4096),
          'channels of the first stage; of each head of a ViT'),
    Field('model.stem', 'cifar', one_of(*resnet.STEMS),
          'first layers of a ResNet: cifar = a 3x3 convolution; imagenet = a '
          '7x7 convolution of stride 2 and a max-pool, as in torchvision',
          before='cifar'),
    Field('model.patch', 0, count(0, 4096),
          "pixels of a ViT's patch; 0 = 4, or 16 for stem imagenet", before=0),
    Field('model.normalise', 'none', one_of(*normalisation.KINDS),
          "imagenet = the network first subtracts ImageNet's mean colour and "
          'divides by its deviation', before='none'),
    Field('model.init_from', '', safetensors,
          'weights to start from: a safetensors file of torchvision, timm or '
          "fedu_jax.export; '' = drawn by the seed", before=''),
    Field('model.hidden', 4096, count(1, UNITS),
          'hidden units of projector and predictor'),
    Field('model.features', 2048, count(1, UNITS),
          'output units of projector and predictor'),
    Field('model.projector_layers', 2, count(0, 2),
          '1 = one linear layer; 0 = no projector'),
    Field('model.predictor_layers', 2, count(0, 2),
          '1 = one linear layer; 0 = no predictor'),
    Field('model.dtype', 'float32', one_of('float32', 'bfloat16'),
          "bfloat16 is for products' factors and for the maps between layers; "
          'sums, parameters, statistics and the loss stay in float32. A CPU is '
          'slower with it'),
    Field('model.precision', 'default', one_of(*precision.PRECISIONS),
          'how training multiplies float32 numbers. default = as the backend '
          'does: a CPU in float32, NVIDIA in TF32, a TPU in bfloat16. '
          'tensorfloat32 = TF32, on a TPU three bfloat16 passes. float32 = in '
          'full, which is slower. The bits of a CPU are the same with each. '
          'Evaluation is always in full', before='default'),
    Field('model.convolution', 'fast', one_of(*convolution.CONVOLUTIONS),
          'exact = without methods that round more. On a CPU, without '
          "Winograd's method a 3x3 layer of full width is slower and differs "
          'from float64 by 2e-7 to 4e-7, not by 1e-6 to 4e-6. On an '
          'accelerator, float32 convolutions use no TF32 or bfloat16 products. '
          'See fedu_jax/models/convolution.py', before='fast'),
    Field('model.frozen', '', stage,
          "what is not trained: the encoder's backbone up to and with this "
          'stage: stem, layer1 to layer3, or blocks.<n> of a ViT. It is '
          'neither averaged nor sent, and its BatchNorm uses stored '
          "statistics. '' = nothing", before=''),
    Field('view.scale', (0.08, 1.0), interval(1e-6, 1),
          "area of a view's crop, as a share of the image's"),
    Field('view.ratio', (3 / 4, 4 / 3), interval(1e-3, 1e3),
          "width over height of a view's crop"),
    Field('view.flip', 0.5, real(0, 1), 'probability that a view is mirrored'),
    Field('view.vertical_flip', 0.0, real(0, 1),
          'probability that a view is upside down, for images without an up, '
          "such as a microscope's", before=0.0),
    Field('view.jitter', 0.8, real(0, 1),
          'probability that the colours of a view change'),
    Field('view.brightness', 0.8, real(0, 1e3), 'largest change of brightness'),
    Field('view.contrast', 0.8, real(0, 1e3), 'largest change of contrast'),
    Field('view.saturation', 0.8, real(0, 1e3), 'largest change of saturation'),
    Field('view.hue', 0.2, real(0, 0.5),
          'largest change of hue, as a share of the colour circle'),
    Field('view.greyscale', 0.2, real(0, 1), 'probability of a grey view'),
    Field('view.blur', (0.0, 0.0), pair(0, 1),
          'probability that the first and the second view of an image are '
          'blurred, with a Gaussian kernel of a tenth of its side. Images of '
          'fewer than 20 pixels a side are not blurred',
          before=(0.0, 0.0)),
    Field('view.blur_sigma', (0.1, 2.0), interval(1e-3, 1e3),
          'range of the deviation of the blur, in pixels', before=(0.1, 2.0)),
    Field('view.solarise', (0.0, 0.0), pair(0, 1),
          'probability that the bright half of values is inverted in the first '
          'and in the second view of an image', before=(0.0, 0.0)),
    Field('view.eight_bit', True, flag,
          'whether colours keep 8 bits after each operation, as in the '
          'released code (PIL). False = fractions are kept, and views are '
          '0.4 % brighter. Images of 16 bits always keep fractions',
          before=False),
    Field('learner.name', 'byol', text,
          'SSL method: byol, simsiam, simclr, moco, fedca, fedsc, supervised'),
    Field('learner.decay', 0.99, real(0, 1),
          'byol, moco: factor of the old target in its moving average'),
    Field('learner.first_target', 'alias', one_of(*FIRST_TARGETS),
          "byol: the target in a client's first round. In the released code it "
          "is the online encoder itself ('alias'); the paper describes a copy "
          "that follows ('copy')"),
    Field('learner.stop_gradient', True, flag,
          'byol, simsiam: whether no gradient reaches the target'),
    Field('learner.ema', True, flag,
          'byol: whether the target follows; False = only the rule changes it'),
    Field('learner.temperature', 0.07, real(1e-3, FACTOR),
          'simclr, moco, fedca: temperature of the softmax'),
    Field('learner.queue_size', 4096, count(1, 10**7),
          'moco: keys of a client; fedca: entries of the dictionary, fewer in '
          'configs/methods.py'),
    Field('loss.name', 'regression_loss', text,
          'loss of byol and simsiam on pairs of embeddings'),
    Field('optimizer.learning_rate', 0.032, real(0, FACTOR),
          'highest rate of SGD, see optimizer.schedule'),
    Field('optimizer.momentum', 0.9, real(0, 1),
          'momentum of SGD, which starts anew each round'),
    Field('optimizer.weight_decay', 5e-4, real(0, FACTOR),
          'weight decay of all parameters, BatchNorm too'),
    Field('optimizer.schedule', 'cosine', one_of(*SCHEDULES),
          'learning rate over the rounds: cosine, constant'),
    Field('divergence.name', 'conv_distance', text,
          "how far a client's encoder moved. conv_distance is the released "
          "code's; squared_distance is the paper's and needs another "
          'rule.threshold'),
    Field('aggregation.name', 'fedavg', text,
          'what the server does: fedavg, fedavg_target, ldawa, fedca, fedsc'),
    Field('rule.name', 'dapu', text,
          'what a client takes of the download: dapu, global_predictor '
          '(FedBYOL), local_predictor, fedema, fedema_auto, fedca, fedsc'),
    Field('rule.threshold', 0.4, real(0, 1e30),
          'dapu: global predictor below this divergence; 1e30 = always'),
    Field('rule.scale', 0.8, real(0, FACTOR),
          'fedema: the weight of the local network is this times the '
          'divergence, at most 1'),
    Field('rule.tau', 0.7, real(0, FACTOR),
          "fedema_auto: weight of the local network at a client's first "
          'divergence, by which its scale is set'),
    Field('rule.reset_missed', True, flag,
          'fedema: whether a client that missed a round takes the global '
          'networks'),
    Field('rule.updates', 'online', one_of(*update_rules.UPDATES),
          'which encoder becomes the global one: online, target, both, '
          'neither'),
    Field('evaluation.every', 10, count(0, MANY),
          'rounds between kNN scores; 0 = none'),
    Field('evaluation.alone', 0, count(0, CLIENTS),
          'clients that also train alone, to compare'),
    Field('evaluation.knn_neighbours', 200, count(1, MANY),
          'neighbours that vote for a class'),
    # A neighbour's weight, exp(1 / temperature), must not overflow.
    Field('evaluation.knn_temperature', 0.1, real(0.02, FACTOR),
          "temperature of a neighbour's weight"),
    Field('evaluation.probe_epochs', 200, count(1, 10**6),
          'epochs of the linear probe'),
    Field('evaluation.probe_batch_size', 2048, count(1, MANY),
          'batch size of the linear probe'),
    Field('evaluation.probe_learning_rate', 3e-3, real(0, FACTOR, above=True),
          'learning rate of the linear probe (Adam)'),
    Field('evaluation.probe_standardise', False, flag,
          'whether the probe gets features of mean 0 and deviation 1'),
    Field('evaluation.labels_per_class', 0, count(0, MANY),
          'labels of a second probe; 0 = no such probe'),
    Field('evaluation.few_draws', 10, count(1, 10**4),
          'draws of those labels; the mean is shown'),
    Field('evaluation.semi_hidden', 4096, count(1, UNITS),
          'hidden units of the semi-supervised head'),
    Field('evaluation.semi_epochs', 100, count(1, 10**6),
          'epochs of the semi-supervised head'),
    Field('checkpoint.every', 5, count(1, MANY), 'rounds between checkpoints'),
    Field('checkpoint.keep', 2, count(1, MANY), 'checkpoints that are kept'),
)

FIELDS: dict[str, Field] = {field.name: field for field in _ALL}
# A field that a later version added -> the value that all earlier runs had. It
# may differ from today's default; earlier runs can therefore resume.
ADDED: dict[str, Any] = {field.name: field.before for field in _ALL
                         if field.before is not None}
