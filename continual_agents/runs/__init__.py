"""What every run has: a folder, checkpoints, a metrics table, TensorBoard, a progress bar, seeds."""

from .checkpoint import CheckpointError as CheckpointError
from .checkpoint import Checkpoints as Checkpoints
from .checkpoint import read_checkpoint as read_checkpoint
from .configuration import read_configuration as read_configuration
from .lock import Lock as Lock
from .lock import LockedError as LockedError
from .logger import LoggerError as LoggerError
from .loggers import check_logger as check_logger
from .loggers import log_comparison as log_comparison
from .faults import Fault as Fault
from .faults import RunError as RunError
from .output import steady_output as steady_output
from .random_state import generator_state as generator_state
from .random_state import set_generator_state as set_generator_state
from .run import Run as Run
from .faults import StorageError as StorageError
from .table import Table as Table
