"""Trains the network of the main job in PyTorch on made-up beats: `torch_speed.py [BEATS] [EPOCHS]`.

Same layers, batch, loss, optimiser, dropout, hidden features and noise as `stages/nn/examples/training_speed.rs`; one thread.
A fifth of the beats goes through the branch of the window, the others through that of the features, each as one batch. What
disturbs the beats is made for a whole batch at once, as a PyTorch user would; of a window it is a move and noise alone, less
than ecgpipe does (which stretches and turns it over, and adds a wave, as well).
"""

import sys
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)
beat_n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
epoch_n = int(sys.argv[2]) if len(sys.argv) > 2 else 2
FEATURE_N, HIDDEN_N, BATCH_N = 80, 96, 512


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers, below = [], 1
        for channels, kernel, stride in [(16, 7, 4), (24, 4, 2), (32, 4, 2), (48, 4, 2)]:
            layers += [nn.Conv1d(below, channels, kernel, stride), nn.ReLU()]
            below = channels
        self.window = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 4, HIDDEN_N))
        self.features = nn.Sequential(nn.Linear(FEATURE_N, 128), nn.ReLU(), nn.Linear(128, HIDDEN_N))
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN_N, 64), nn.ReLU(), nn.Linear(64, 5))

    def forward(self, window, features):
        return self.head(torch.cat([self.window(window), self.features(features)]))


windows = torch.rand(beat_n, 1, 187)
features = torch.randn(beat_n, FEATURE_N)
labels = torch.arange(beat_n) % 5
network = Network()
matrices = [weight for weight in network.parameters() if weight.dim() > 1]
biases = [weight for weight in network.parameters() if weight.dim() == 1]
groups = [{"params": matrices, "weight_decay": 0.03}, {"params": biases, "weight_decay": 0.0}]
optimiser = torch.optim.AdamW(groups, lr=2e-3, fused=True)
loss_of = nn.CrossEntropyLoss()
positions = torch.arange(187)


def batch_step(idx):
    by_window = torch.rand(len(idx)) < 0.2
    first, second = idx[by_window], idx[~by_window]
    shift = torch.randint(-5, 6, (len(first), 1))
    columns = (positions + shift).clamp(0, 186)
    window = windows[first, 0].gather(1, columns) + 0.03 * torch.randn(len(first), 187)
    known = features[second] + 0.02 * torch.randn(len(second), FEATURE_N)
    known = known.clamp(-5, 5) * (torch.rand(len(second), FEATURE_N) >= 0.2)
    optimiser.zero_grad(set_to_none=True)
    loss = loss_of(network(window.unsqueeze(1), known), labels[torch.cat([first, second])])
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return loss.item()


batch_step(torch.arange(BATCH_N))
start, cpu_start = time.perf_counter(), time.process_time()
for _ in range(epoch_n):
    for idx in torch.randperm(beat_n).split(BATCH_N):
        batch_step(idx)
wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
total_n = beat_n * epoch_n
print(f"torch {torch.__version__}: {total_n / wall_s:.0f} beats/s of wall time, {total_n / cpu_s:.0f} beats/s of CPU time")
