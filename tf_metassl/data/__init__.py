"""Datasets, splits, views and pipelines. Knows no algorithm."""
