"""Samples, where they come from, and the pipeline that turns them into batches."""
