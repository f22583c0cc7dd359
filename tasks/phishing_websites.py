"""Web sites described by 30 yes-no-perhaps features of address, page and domain: 4,898 phishing, 6,157 legitimate.

Source: R. Mohammad, F. Thabtah and L. McCluskey, "Phishing Websites", UCI Machine Learning Repository, 2015,
https://archive.ics.uci.edu/dataset/327/phishing+websites; the features are those of their "An Assessment of Features
Related to Phishing Websites Using an Automated Technique", ICITST 2012. Read from phishing_websites.csv, the published
ARFF file with its attribute names as the first line. It is no substitute for the private e-mails of other papers: the
features are answers, not scores.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from thornbed.tasks import Defaults, Samples, Task
from thornbed.tasks.sources.files import existing
from thornbed.tasks.sources.subset import rows_to_test, take
from thornbed.tasks.sources.unpacked import unpacked

# Plain FedAvg with these very numbers: test accuracy 0.92-0.93 after 30 rounds, over three seeds.
# A hundred clients would be 88 rows each, and Dirichlet shares of two classes then often leave one of them without.
DEFAULTS = Defaults(model="mlp(hidden=(128, 256))", num_clients=20, clients_per_round=20)

FILE = "phishing_websites.csv"
WHERE = (
    f"put {FILE} into that folder, made of the ARFF file of "
    "https://archive.ics.uci.edu/dataset/327/phishing+websites by writing the names of its attributes, joined by "
    "commas, as the first line and what follows @data below it"
)
# As the published file spells them.
FEATURES = (
    "having_IP_Address", "URL_Length", "Shortining_Service", "having_At_Symbol", "double_slash_redirecting",
    "Prefix_Suffix", "having_Sub_Domain", "SSLfinal_State", "Domain_registeration_length", "Favicon", "port",
    "HTTPS_token", "Request_URL", "URL_of_Anchor", "Links_in_tags", "SFH", "Submitting_to_email", "Abnormal_URL",
    "Redirect", "on_mouseover", "RightClick", "popUpWidnow", "Iframe", "age_of_domain", "DNSRecord", "web_traffic",
    "Page_Rank", "Google_Index", "Links_pointing_to_page", "Statistical_report",
)  # fmt: skip
COLUMNS = (*FEATURES, "Result")


def phishing_websites(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task: samples of 30 float32 features, each -1 (phishing-like), 0 (suspicious) or 1; two classes.

    Label 1 is phishing, which the file calls Result -1, and label 0 legitimate, its Result 1: of the published table
    4,898 rows are phishing, and those have -1. The split is fixed: the rows are permuted by NumPy's RandomState(0), and
    the first fifth of them, both classes in their share, are the test set; both parts keep the order of the file. The
    published table holds many sites with equal features: 65% of its test rows have a twin in training, which flatters
    whoever learns by heart. `num_train` and `num_test` take that many samples, every class in its share, the first
    ones of each. Raises MissingData where `data_dir` has no such file, ValueError where it is malformed or has fewer
    samples than asked for.
    """
    samples = _read(existing("phishing_websites", data_dir, (FILE,), WHERE))
    in_test = rows_to_test(samples.y, len(samples) // 5)
    return Task(
        name="phishing_websites",
        modality="table",
        num_classes=2,
        train=take(samples.select(~in_test), num_train, task="phishing_websites", option="num_train"),
        test=take(samples.select(in_test), num_test, task="phishing_websites", option="num_test"),
        class_names=("legitimate", "phishing"),
    )


def _read(path: Path) -> Samples:
    """Read the table; raises ValueError with the file and the line where it is not what it should be."""
    try:
        header, *rows = csv.reader(unpacked(path).decode("utf-8-sig").splitlines(keepends=True))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a table of comma-separated values: {error}") from error
    if tuple(header) != COLUMNS:
        wrong = sorted({*header} ^ {*COLUMNS})
        which = f"missing or unknown {', '.join(wrong)}" if wrong else "in another order or twice"
        raise ValueError(f"{path} has {len(header)} columns, expected {len(COLUMNS)} as published: {which}")
    if len(rows) < 5:
        raise ValueError(f"{path} has {len(rows)} rows, expected at least 5")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            raise ValueError(f"{path}, line {number}: {len(row)} values, expected {len(COLUMNS)}")
        for name, value in zip(COLUMNS, row):
            if value not in (("-1", "1") if name == "Result" else ("-1", "0", "1")):
                expected = "-1 or 1" if name == "Result" else "-1, 0 or 1"
                raise ValueError(f"{path}, line {number}: {name} is {value!r}, expected {expected}")
    values = torch.from_numpy(np.array(rows, dtype=np.float32))
    return Samples(values[:, :-1].contiguous(), (values[:, -1] == -1).to(torch.int64))
