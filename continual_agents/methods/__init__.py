"""Methods of keeping plasticity, for reinforcement learning agents and supervised streams alike."""

from .l2_init import PullToInit as PullToInit
from .method import Method as Method
from .operation import AfterStep as AfterStep
from .operation import Operation as Operation
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .optimizers import OptimizerRow as OptimizerRow
from .perturb import Perturb as Perturb
from .reset import Reset as Reset
from .table import OPERATIONS as OPERATIONS
from .table import OperationRow as OperationRow
from .target import Layer as Layer
from .target import ModuleTarget as ModuleTarget
from .target import Target as Target
