"""The model, the data and the two loops of the quickstart."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """A small convolutional network with batch norm, so that there are statistics and a counter too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x):
        """Return logits (N, 10) of images (N, 1, 8, 8)."""
        x = torch.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.fc(x.flatten(1))


def load_data(partition_id, num_partitions, batch_size):
    """Return the loaders of a client's own four fifths and fifth."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    rows = torch.arange(partition_id, len(labels), num_partitions)
    cut = 4 * len(rows) // 5
    own = [TensorDataset(images[part], labels[part]) for part in (rows[:cut], rows[cut:])]
    order = torch.Generator().manual_seed(partition_id)
    train = DataLoader(own[0], batch_size=batch_size, shuffle=True, generator=order)
    return train, DataLoader(own[1], batch_size=batch_size)


def train(net, loader, epochs, lr):
    """Train in place; return the mean loss of a batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    total = 0.0
    net.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


def test(net, loader):
    """Return the mean loss of a batch, and the accuracy."""
    loss, correct = 0.0, 0
    net.eval()
    with torch.no_grad():
        for images, labels in loader:
            logits = net(images)
            loss += nn.functional.cross_entropy(logits, labels).item()
            correct += int((logits.argmax(dim=1) == labels).sum())
    return loss / len(loader), correct / len(loader.dataset)
