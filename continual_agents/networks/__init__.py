"""Ingredients of networks, one vocabulary for agents and streams: activations, norms, layers, the plain mlp."""

from .activations import ACTIVATIONS as ACTIVATIONS
from .activations import Activation as Activation
from .activations import activation_of as activation_of
from .conv import ConvNet as ConvNet
from .layers import CReLU as CReLU
from .layers import Dropout as Dropout
from .layers import Fourier as Fourier
from .mlp import mlp as mlp
from .norms import NORMS as NORMS
from .norms import Norm as Norm
from .norms import norm_of as norm_of
from .recurrent import RecurrentBody as RecurrentBody
