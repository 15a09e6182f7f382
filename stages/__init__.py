"""The stages of dvc.yaml, `python -m stages.NAME`, and the packages that they use."""
