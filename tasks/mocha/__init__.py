"""Federated multitask learning of linear models: its objective, its dual and its solver, on bare arrays.

Paper: V. Smith, C.-K. Chiang, M. Sanjabi and A. Talwalkar, "Federated Multi-Task Learning", NeurIPS 2017 (MOCHA).

It lies under `tasks` because three sides need it that may not import each other: clients do its local work, strategies
its server's work, and attacks look ahead through it; all three may import tasks. Nothing here knows Flower.
"""
