"""The converter's commands: one module each, named like the command."""
