"""Speed, memory and error, measured: ``python -m benchmarks.NAME``, one for each module here."""
