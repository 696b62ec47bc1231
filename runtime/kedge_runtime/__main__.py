"""Run the command line where the script `kedge` isn't on the path: `python -m kedge_runtime`."""

from kedge_runtime.cli import main

if __name__ == "__main__":
    main()
