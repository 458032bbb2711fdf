"""One thread a test process: two workers with two threads each spend their time waiting for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)
