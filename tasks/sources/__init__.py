"""Where data come from: files the user has, torchvision's downloads. Shared by tasks; not tasks themselves."""


class MissingData(FileNotFoundError):
    """Data that a task needs are not there; its text is one sentence that names every way to get them."""
