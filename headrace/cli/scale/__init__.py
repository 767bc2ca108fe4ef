"""`headrace scale`: hosts, demand and decisions of the autoscaler."""
