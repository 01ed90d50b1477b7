"""From a trigger to a record: judge, sample, and the worker that carries a part."""
