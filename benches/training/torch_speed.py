"""Trains the network of the main job in PyTorch on made-up beats: `torch_speed.py [BEATS] [EPOCHS]`.

Same layers, batch, loss, optimiser, dropout, shift and noise as `stages/nn/examples/training_speed.rs`; one thread. The
shift and the noise are made for a whole batch at once, as a PyTorch user would.
"""

import sys
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)
beat_n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
epoch_n = int(sys.argv[2]) if len(sys.argv) > 2 else 2


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers, below = [], 1
        for channels, kernel, stride in [(16, 7, 4), (24, 4, 2), (32, 4, 2), (48, 4, 2)]:
            layers += [nn.Conv1d(below, channels, kernel, stride), nn.ReLU()]
            below = channels
        self.window = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 4, 32))
        self.features = nn.Sequential(nn.Linear(11, 32), nn.ReLU(), nn.Linear(32, 32))
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, window, features, present):
        return self.head(self.window(window) + present * self.features(features))


windows = torch.rand(beat_n, 1, 187)
features = torch.randn(beat_n, 11)
labels = torch.arange(beat_n) % 5
network = Network()
optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)
loss_of = nn.CrossEntropyLoss(weight=torch.ones(5))
positions = torch.arange(187)


def batch_step(idx):
    shift = torch.randint(-5, 6, (len(idx), 1))
    columns = (positions + shift).clamp(0, 186)
    window = windows[idx, 0].gather(1, columns) + 0.03 * torch.randn(len(idx), 187)
    present = (torch.rand(len(idx), 1) >= 0.2).float()
    optimiser.zero_grad(set_to_none=True)
    loss = loss_of(network(window.unsqueeze(1), features[idx].clamp(-5, 5), present), labels[idx])
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return loss.item()


batch_step(torch.arange(256))
start, cpu_start = time.perf_counter(), time.process_time()
for _ in range(epoch_n):
    for idx in torch.randperm(beat_n).split(256):
        batch_step(idx)
wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
total_n = beat_n * epoch_n
print(f"torch {torch.__version__}: {total_n / wall_s:.0f} beats/s of wall time, {total_n / cpu_s:.0f} beats/s of CPU time")
