"""Keep neural networks able to learn: network surgery, continual PPO and plasticity diagnostics for PyTorch."""
