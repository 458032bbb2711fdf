"""Methods of keeping plasticity, for reinforcement learning agents and supervised streams alike."""

from .after_step import AfterStep as AfterStep
from .l2_init import PullToInit as PullToInit
from .method import Method as Method
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .perturb import Perturb as Perturb
from .reset import Reset as Reset
from .table import OPERATIONS as OPERATIONS
from .table import Operation as Operation
