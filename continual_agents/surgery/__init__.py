"""Network surgery beside any PyTorch model and optimizer: find units, judge them, replace them in place."""

from .adam import Adam as Adam
from .axes import register as register
from .births import BIRTHS as BIRTHS
from .continual_backprop import GENERATE_AND_TEST as GENERATE_AND_TEST
from .continual_backprop import ContinualBackprop as ContinualBackprop
from .find import Found as Found
from .find import find as find
from .generator import Birth as Birth
from .optimizer_state import forget_ as forget_
from .redo import ReDo as ReDo
from .replace import replace_ as replace_
from .snr import SelfNormalizedResets as SelfNormalizedResets
from .units import Reader as Reader
from .units import Units as Units
from .utility import UTILITIES as UTILITIES
from .utility import Signals as Signals
from .utility import Utility as Utility
