"""Supervised streams on which loss of plasticity was shown, and networks that train on them as one stack."""

from .group import make_learner as make_learner
from .networks import MaxPoolNet as MaxPoolNet
from .networks import Mlp as Mlp
from .plans import Plan as Plan
from .plans import make_plans as make_plans
from .plans import stacks as stacks
from .streams.table import make_stream as make_stream
from .train import train as train
