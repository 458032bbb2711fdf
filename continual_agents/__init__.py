"""Keep neural networks able to learn: network surgery, continual PPO and plasticity diagnostics for PyTorch."""

from .rooms import offer_environments as _offer_environments

_offer_environments()
