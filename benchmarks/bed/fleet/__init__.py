"""Local hosts that the autoscaler moves: their stack, a load by the clock, what became of it in SQL, and a chart."""
