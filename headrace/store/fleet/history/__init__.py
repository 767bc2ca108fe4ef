"""What became of the fleet and its queues over time: charts, and the tables behind them."""
