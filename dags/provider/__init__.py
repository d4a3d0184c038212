"""The Airflow provider: a connection type, operators for the steps of a load, the sensors and triggers that wait for them."""
