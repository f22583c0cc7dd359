"""Flower's client app, where Flower looks for it."""

from thornbed.flower_apps.client_app import app

__all__ = ["app"]
