"""Speed, memory and error, measured: ``python -m benchmarks.finetune``, ``... .sfsl_error``."""
