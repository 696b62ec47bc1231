"""The device's commands: one module each, named like the command."""
