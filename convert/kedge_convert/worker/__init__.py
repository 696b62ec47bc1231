"""The process in which a conversion runs, and the progress that it reports."""
