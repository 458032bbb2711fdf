"""What is a unit, and who reads it.

`find` follows the units of every layer through a trace of the network:

    trace.py        a flat list of calls (calls.py): by one forward pass (recorder.py, quiet.py), or symbolic.py
    flow.py         goes through the calls; rules.py and shapes.py say what each operation does to units
    ledger.py       the book it keeps: which value carries which units (groups.py)
    stacked.py      networks that are called with stacked parameters: a twin for each member
    layers.py       the table of layers that make and read units, and `register`; norms.py, torch_names.py: the others
    units.py        the result: `Units`, made by layers, read by `Reader`s, in tensors at `Slot`s
"""

from .find import Found as Found
from .find import find as find
from .layers import LAYERS as LAYERS
from .layers import axes_of as axes_of
from .layers import register as register
from .norms import NORMS as NORMS
from .norms import register_norm as register_norm
from .quiet import is_paused as is_paused
from .quiet import paused as paused
from .slots import Norm as Norm
from .slots import Reader as Reader
from .slots import Slot as Slot
from .stacked import own as own
from .stacked import whole as whole
from .units import Units as Units
