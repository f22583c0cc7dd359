"""The actions a message can ask for: Flower's message types, as the client app registers them."""

TRAIN = "train"
EVALUATE = "evaluate"
IDENTIFY = "query.identify"
TRAIN_MOCHA = "train.mocha"
QUERY_ROWS = "query.rows"
TRAIN_SPLIT = "train.split"
EVALUATE_SPLIT = "evaluate.split"
