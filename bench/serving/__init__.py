"""What `make bench-serve` is made of: the data, the two servers, the two load generators."""
