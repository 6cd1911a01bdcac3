"""Numbers as printed, each with its source. Linear probe, top-1 per cent.

FedU: Zhuang et al., ICCV 2021, the authors' poster. FedEMA: Zhuang et al., ICLR
2022, tables 1 to 3. Where both ran a setting, both stand here. Whether
FedU's single client or FedEMA's Standalone is one client or a mean over them is
not said; here the first is one, the second a mean.
"""

FEDU = 'Zhuang et al. 2021 (poster), ResNet-18'
FEDEMA = 'Zhuang et al. 2022, ResNet-18'

# (method, data, split) -> as printed.
LINEAR = {
    ('one client', 'CIFAR-10', 'IID'): '81.24',
    ('mean of clients alone', 'CIFAR-10', 'IID'): '82.42 ± 0.32',
    ('one client', 'CIFAR-10', 'non-IID'): '71.98',
    ('mean of clients alone', 'CIFAR-10', 'non-IID'): '74.95 ± 0.66',
    ('one client', 'CIFAR-100', 'IID'): '51.33',
    ('mean of clients alone', 'CIFAR-100', 'IID'): '53.88 ± 2.24',
    ('one client', 'CIFAR-100', 'non-IID'): '49.69',
    ('mean of clients alone', 'CIFAR-100', 'non-IID'): '52.37 ± 0.93',
    ('FedBYOL', 'CIFAR-10', 'IID'): '84.29 ± 0.18',
    ('FedBYOL', 'CIFAR-10', 'non-IID'): '79.44 ± 0.99',
    ('FedBYOL', 'CIFAR-100', 'IID'): '54.24 ± 0.24',
    ('FedBYOL', 'CIFAR-100', 'non-IID'): '57.51 ± 0.09',
    ('FedU', 'CIFAR-10', 'IID'): '85.21; 83.96 ± 0.18',
    ('FedU', 'CIFAR-10', 'non-IID'): '78.71; 80.52 ± 0.21',
    ('FedU', 'CIFAR-100', 'IID'): '56.52; 54.82 ± 0.67',
    ('FedU', 'CIFAR-100', 'non-IID'): '57.08; 57.21 ± 0.31',
    ('FedEMA', 'CIFAR-10', 'IID'): '85.59 ± 0.25',
    ('FedEMA', 'CIFAR-10', 'non-IID'): '82.77 ± 0.08',
    ('FedEMA', 'CIFAR-100', 'IID'): '57.86 ± 0.15',
    ('FedEMA', 'CIFAR-100', 'non-IID'): '61.21 ± 0.54',
    ('FedEMA, auto', 'CIFAR-10', 'IID'): '86.26 ± 0.26',
    ('FedEMA, auto', 'CIFAR-10', 'non-IID'): '83.34 ± 0.39',
    ('FedEMA, auto', 'CIFAR-100', 'IID'): '58.55 ± 0.34',
    ('FedEMA, auto', 'CIFAR-100', 'non-IID'): '61.78 ± 0.14',
    ('FedSimCLR', 'CIFAR-10', 'non-IID'): '78.09 ± 0.14',
    ('FedSimCLR', 'CIFAR-100', 'non-IID'): '55.58 ± 0.13',
    ('FedMoCo v1', 'CIFAR-10', 'non-IID'): '78.21 ± 0.04',
    ('FedMoCo v1', 'CIFAR-100', 'non-IID'): '56.98 ± 0.29',
    ('FedMoCo v2', 'CIFAR-10', 'non-IID'): '79.14 ± 0.13',
    ('FedMoCo v2', 'CIFAR-100', 'non-IID'): '57.47 ± 0.65',
    ('FedSimSiam', 'CIFAR-10', 'non-IID'): '76.27 ± 0.18',
    ('FedSimSiam', 'CIFAR-100', 'non-IID'): '48.94 ± 0.22',
    ('BYOL, centralised', 'CIFAR-10', 'IID'): '90.46 ± 0.34',
    ('BYOL, centralised', 'CIFAR-100', 'IID'): '65.54 ± 0.47',
    # ResNet-50, from the poster.
    ('FedCA', 'CIFAR-10', 'IID'): '71.25 (ResNet-50)',
    ('FedCA', 'CIFAR-10', 'non-IID'): '68.01 (ResNet-50)',
    ('FedCA', 'CIFAR-100', 'IID'): '43.30 (ResNet-50)',
    ('FedCA', 'CIFAR-100', 'non-IID'): '42.34 (ResNet-50)',
    ('supervised FedAvg', 'CIFAR-10', 'IID'): '91.51 (ResNet-50)',
    ('supervised FedAvg', 'CIFAR-10', 'non-IID'): '67.74 (ResNet-50)',
    ('supervised FedAvg', 'CIFAR-100', 'IID'): '65.77 (ResNet-50)',
    ('supervised FedAvg', 'CIFAR-100', 'non-IID'): '64.38 (ResNet-50)',
}

# (aggregate, update, predictor): the poster's ablation; its data, split and
# rounds are not printed.
PROTOCOL = {
    ('online', 'online', 'global'): '84.07',
    ('online', 'online', 'local'): '82.18',
    ('online', 'target', 'global'): '9.99',
    ('online', 'target', 'local'): '19.22',
    ('online', 'both', 'global'): '81.24',
    ('online', 'both', 'local'): '18.23',
    ('target', 'online', 'global'): '82.10',
    ('target', 'online', 'local'): '78.06',
    ('target', 'target', 'global'): '9.99',
    ('target', 'target', 'local'): '25.02',
    ('target', 'both', 'global'): '82.32',
    ('target', 'both', 'local'): '29.03',
}

# The poster's bars, read off pixels to 0.1; in the same unprinted setting.
PREDICTOR = {'local': '82.18', 'global': '84.07', 'DAPU': '~87.1'}

# FedEMA's table 2, CIFAR-10: classes per client -> (FedBYOL, FedSimSiam).
CLASSES = {2: ('79.44', '76.27'), 4: ('82.82', '79.34'), 6: ('83.02', '80.17'),
           8: ('84.57', '80.92'), 10: ('84.20', '80.50')}
