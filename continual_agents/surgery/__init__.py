"""Network surgery beside any PyTorch model and optimizer: find units, judge them, replace them in place."""

from .adam import Adam as Adam
from .births import BIRTHS as BIRTHS
from .births import Birth as Birth
from .continual_backprop import GENERATE_AND_TEST as GENERATE_AND_TEST
from .continual_backprop import ContinualBackprop as ContinualBackprop
from .finding import Found as Found
from .finding import Norm as Norm
from .finding import Reader as Reader
from .finding import Units as Units
from .finding import find as find
from .finding import register as register
from .finding import register_norm as register_norm
from .optimizer_state import forget_ as forget_
from .published_adam import PublishedAdam as PublishedAdam
from .redo import ReDo as ReDo
from .regrama import ReGraMa as ReGraMa
from .replace import replace_ as replace_
from .replacement import Replacement as Replacement
from .self_normalized_resets import SelfNormalizedResets as SelfNormalizedResets
from .utility import UTILITIES as UTILITIES
from .utility import Signals as Signals
from .utility import Utility as Utility
