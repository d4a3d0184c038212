"""The build job: what plays Hive's UDTF. A Hive table becomes SST files and a manifest in the object store."""
