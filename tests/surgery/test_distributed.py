"""DistributedDataParallel on two processes (gloo): the same units and weights on every rank."""

import socket
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from continual_agents import surgery


def worker(rank: int, port: int, results) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2))
    model = nn.parallel.DistributedDataParallel(net)
    optimizer = surgery.Adam(model.parameters(), lr=0.01)
    companions = [
        surgery.ContinualBackprop(
            surgery.find(model), optimizer, rate=0.02, maturity=5, generator=torch.Generator().manual_seed(rank)
        ),
        surgery.ReDo(surgery.find(model), optimizer, threshold=0.3, period=7),
    ]
    g = torch.Generator().manual_seed(10 + rank)  # different data on every rank
    log = []
    for _ in range(40):
        optimizer.zero_grad()
        (model(torch.randn(6, 4, generator=g) * (1 + rank)) - 1).square().mean().backward()
        optimizer.step()
        log.append([{name: index.tolist() for name, index in c.step().items()} for c in companions])
    results[rank] = (log, [p.detach().tolist() for p in net.parameters()])
    dist.destroy_process_group()


def test_the_same_units_on_every_rank() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(worker, (port, results), nprocs=2)
        (log, weights), (other_log, other_weights) = results[0], results[1]
    assert log == other_log
    assert weights == other_weights
    assert sum(bool(entry[0]) for entry in log) > 5
    assert any(entry[1] for entry in log)
