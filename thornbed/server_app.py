"""Flower's server app, where Flower looks for it."""

from thornbed.flower_apps.server_app import app

__all__ = ["app"]
