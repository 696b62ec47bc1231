"""Where work is done: in this process, in processes, or on a Dask cluster."""
