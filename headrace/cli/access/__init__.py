"""Commands about who may do what: apps, keys, operators, analysts, and what operators did."""
