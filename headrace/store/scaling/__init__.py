"""What the autoscaler decides by: the capacity of hosts, what they cost, and the history of demand."""
