"""Composition: the only place where names become objects, and where runs are started."""
