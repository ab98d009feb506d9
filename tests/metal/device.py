"""Run by path inside the Metal engine environment: what MLX computes on there. Prints one JSON object."""

from __future__ import annotations

from typing import Any

from tests.metal.reply import reply


def main() -> dict[str, Any]:
    from appliance_metal import device

    return {"device": device.name(), "mlx": device.mlx().__version__}


if __name__ == "__main__":
    reply(main)
