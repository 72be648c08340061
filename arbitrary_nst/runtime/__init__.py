"""Paths, devices, processes, weights and provenance: the parts that every command needs."""
