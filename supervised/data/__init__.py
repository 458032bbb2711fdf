"""Data sets of the streams, read as they are found and checked; importing needs only NumPy."""

from .cifar import load_cifar100 as load_cifar100
from .digits import load_digits as load_digits
from .errors import DataError as DataError
from .imagenet import load_imagenet as load_imagenet
from .mnist import load_mnist as load_mnist
from .prepare import find_source as find_source
from .prepare import prepare as prepare
from .textures import Textures as Textures
