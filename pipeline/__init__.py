"""What a bulk load is: the contract, the spec, the store, the coordinator and the command line."""
