"""Prefect's and MLflow's servers and a worker on this machine: start, stop, databases, passwords, backups."""
