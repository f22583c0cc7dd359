"""Server side: Flower strategies. Rules of defenses/aggregation need no strategy of their own."""
