"""Airflow: `provider/` is installed beside Airflow, `definitions/` is the folder that Airflow scans for DAGs."""
