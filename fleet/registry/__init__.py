"""Model versions, each immutable and named by its digest."""
