"""The appliance as a service of the machine: launchd's on macOS, systemd's on Linux."""
