"""The DAG folder: `redkv_datasets.py` is what Airflow finds here; the others make DAGs of specs."""
