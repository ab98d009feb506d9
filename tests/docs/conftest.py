from tests.cli.conftest import machine

__all__ = ["machine"]
