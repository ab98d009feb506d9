"""The plug-in as vLLM finds it: a package whose modules are the files above this directory.

An engine environment has no `appliance`, and the control environment must not leak onto its path. So the driver puts
this directory alone on PYTHONPATH; the metadata beside this file names `register` as a platform plug-in of vLLM and
`register_models` as a general one, and from this very installation come the platform, the worker and the runner.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent.parent)]


def register() -> str:
    """The platform class to use: on the path is only who was asked for."""
    return "appliance_metal.platform.MetalPlatform"


def register_models() -> None:
    from appliance_metal import registry

    registry.register()
