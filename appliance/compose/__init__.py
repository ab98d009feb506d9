"""Compose's provider protocol: a service that is this appliance, on the host."""
